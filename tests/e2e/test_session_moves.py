"""Sessions and their locks when servers die: what a session does not depend on does not end it, and a new leader keeps what it was
promised."""
import json
import signal
import time

from cluster import PATIENT, Cluster, wait_for

TTL_S = 10
LOCK_DELAY_S = 10


def create(server, **settings):
    status, _, body = server.request("PUT", "/v1/session/create", json.dumps(settings))
    assert status == 200, body
    return json.loads(body)["ID"]


def there(server, session):
    return len(server.get_json("/v1/session/info/" + session)) == 1


def renew(server, session):
    status, _, body = server.request("PUT", "/v1/session/renew/" + session)
    assert status == 200, body


def acquire(server, key, session):
    """True or false; None: no answer just now."""
    status, _, body = server.request("PUT", "/v1/kv/%s?acquire=%s" % (key, session), b"x")
    return json.loads(body) if status == 200 else None


def unreachable(server, node):
    checks = server.get_json("/v1/health/node/" + node)
    return any(check["CheckID"] == "serfHealth" and check["Status"] == "critical" for check in checks)


def test_a_session_with_an_empty_check_list_lives_on_when_its_server_loses_the_network():
    """hashicorp/consul#20424."""
    with Cluster(size=3, extra=PATIENT) as cluster:
        leader = cluster.wait_leader()
        cluster.wait_members()
        home = [server for server in cluster.servers if server is not leader][0]
        free = create(home, TTL="%ds" % TTL_S, Checks=[])
        bound = create(home)
        node = leader.get_json("/v1/session/info/" + free)[0]["Node"]
        assert acquire(leader, "free", free)
        home.process.send_signal(signal.SIGSTOP)
        try:
            end = time.monotonic() + 60
            while not unreachable(leader, node):
                assert time.monotonic() < end, "the others do not notice"
                renew(leader, free)
                time.sleep(1)

            def gone():
                renew(leader, free)
                return not there(leader, bound)
            wait_for("the end of the session that depends on it", gone, 60)
            renew(leader, free)
            assert there(leader, free)
            assert leader.get_json("/v1/kv/free")[0]["Session"] == free
        finally:
            home.process.send_signal(signal.SIGCONT)


def test_a_new_leader_keeps_lock_delays_and_gives_sessions_their_ttl_anew():
    with Cluster(size=3) as cluster:
        cluster.wait_members()
        any_one = cluster.servers[0]
        holder = create(any_one, LockDelay="%ds" % LOCK_DELAY_S, Checks=[])
        waiter = create(any_one, Checks=[])
        mortal = create(any_one, TTL="%ds" % TTL_S, Checks=[])
        wait_for("the lock of the first", lambda: acquire(any_one, "lock", holder) is True, 60)
        leader = cluster.wait_leader()  # Who has it by now: on a busy machine it moves.
        other = [server for server in cluster.servers if server is not leader][0]
        destroyed = time.monotonic()
        status, _, body = other.request("PUT", "/v1/session/destroy/" + holder)
        assert status == 200, body
        killed = time.monotonic()
        leader.kill()

        wait_for("the lock", lambda: acquire(other, "lock", waiter) is True, 60)
        assert time.monotonic() - destroyed >= LOCK_DELAY_S, "granted in lock-delay"
        wait_for("the end of the session that nobody renews", lambda: not there(other, mortal), 90)
        assert time.monotonic() - killed >= 2 * TTL_S, "the new leader took over an earlier deadline"
