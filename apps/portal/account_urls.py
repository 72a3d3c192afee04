"""Addresses of signing in, of one's own account, and of people."""

from django.urls import path

from apps.portal.views import signin

urlpatterns = [
    path("sign-in/", signin.sign_in, name="sign-in"),
    path("sign-in/code/", signin.one_time_code, name="sign-in-code"),
    path("sign-in/enrol/", signin.enrol, name="enrol"),
    path("sign-out/", signin.sign_out, name="sign-out"),
]
