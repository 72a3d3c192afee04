"""The throw-away servers are real, empty and of this test run."""

import psycopg
import redis


def test_postgresql_answers_and_listens_on_no_port(postgres_cluster: str) -> None:
    with psycopg.connect(postgres_cluster) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("",)
        tables = connection.execute(
            "select count(*) from pg_tables where schemaname = 'public'"
        ).fetchone()
        assert tables == (0,)


def test_redis_answers_and_keeps_nothing(redis_server: str) -> None:
    with redis.Redis.from_url(redis_server) as client:
        assert client.ping()
        assert client.config_get("save") == {"save": ""}
