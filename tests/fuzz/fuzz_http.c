/* Bytes as a client would send them, in two pieces, into a connection without a socket: through
 * framing, parsing, routing and the handlers of KV, sessions and status, down to the store. */

#include "tests/unit/http_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 64 * 1024, FUZZ_TURNS = 4 };

static struct http_fixture fixture;

static void fuzz_feed(struct http_conn *conn, const uint8_t *data, size_t size)
{
    if (size > 0 && conn->state != HTTP_CONN_CLOSED && !conn->paused) {
        http_conn_feed(conn, (struct slice){(const char *)data, size});
    }
    for (int i = 0; i < FUZZ_TURNS; i++) {
        (void)uv_run(&fixture.loop, UV_RUN_NOWAIT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > FUZZ_BYTES_MAX) {
        return 0;
    }
    if (fixture.server.http == NULL) {
        http_fixture_open(&fixture, -1); /* No listener. */
    }
    struct http_conn *conn = http_conn_new(fixture.server.http);
    /* The first byte says where the rest is cut. */
    const size_t cut = (size - 1) * data[0] / 256;

    assert(conn != NULL);
    fuzz_feed(conn, data + 1, cut);
    fuzz_feed(conn, data + 1 + cut, size - 1 - cut);
    http_conn_discard(conn);
    for (int i = 0; i < FUZZ_TURNS; i++) {
        (void)uv_run(&fixture.loop, UV_RUN_NOWAIT);
    }
    assert(fixture.server.http->conn_count == 0);
    assert(fixture.server.http->gzip.count == 0);
    assert(watch_table_count(fixture.server.watches) == 0);
    (void)http_fixture_close; /* The process ends with it open: it serves all inputs. */
    return 0;
}
