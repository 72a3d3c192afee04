"""Addresses of signing in, of one's own account, and of people."""

from django.urls import path

from apps.portal.views import account, api_tokens, graces, notice, people, signin

urlpatterns = [
    path("sign-in/", signin.sign_in, name="sign-in"),
    path("sign-in/code/", signin.one_time_code, name="sign-in-code"),
    path("sign-in/enrol/", signin.enrol, name="enrol"),
    path("sign-out/", signin.sign_out, name="sign-out"),
    path("account/", account.account, name="account"),
    path("account/keys/add/", account.add_key, name="key-add"),
    path("account/keys/<uuid:key_id>/remove/", account.remove_key, name="key-remove"),
    path("account/signed-in/end/", account.end_session, name="portal-session-end"),
    path(
        "account/signed-in/end-all/",
        account.sign_out_everywhere,
        name="sign-out-everywhere",
    ),
    path("account/api-tokens/", api_tokens.tokens, name="api-tokens"),
    path(
        "account/api-tokens/<uuid:token_id>/revoke/",
        api_tokens.revoke_token,
        name="api-token-revoke",
    ),
    path("account/password/", account.change_password, name="password"),
    path("account/recovery-codes/", account.recovery_codes, name="recovery-codes"),
    path("sign-in-notice/", notice.notice, name="sign-in-notice"),
    path("people/", people.people, name="people"),
    path("people/add/", people.add_person, name="person-add"),
    path("people/<uuid:person_id>/", people.person_detail, name="person-detail"),
    path("people/<uuid:person_id>/change/", people.change_person, name="person-change"),
    path(
        "people/<uuid:person_id>/disable/",
        people.disable_person,
        name="person-disable",
    ),
    path("people/<uuid:person_id>/enable/", people.enable_person, name="person-enable"),
    path(
        "people/<uuid:person_id>/reset-factors/",
        people.reset_factors,
        name="person-reset-factors",
    ),
    path(
        "people/<uuid:person_id>/reset-password/",
        people.reset_password,
        name="person-reset-password",
    ),
    path(
        "people/<uuid:person_id>/graces/end/",
        graces.end_of_person,
        name="person-graces-end",
    ),
    path("people/<uuid:person_id>/sites/add/", people.add_site, name="person-site-add"),
    path(
        "people/<uuid:person_id>/sites/<uuid:site_id>/remove/",
        people.remove_site,
        name="person-site-remove",
    ),
]
