#include "server/agent/probe_stream.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/errmsg.h"

#define PROBE_STREAM_MAGIC 0x50535452u

enum { PROBE_READ_BYTES = 16 * 1024 };

struct probe_stream {
    uint32_t magic;
    uv_loop_t *loop;
    uv_getaddrinfo_t lookup;
    uv_tcp_t tcp;
    uv_connect_t connect;
    bool looking_up;  /* the request is with libuv */
    bool tcp_open;    /* the handle is initialised and not yet closing */
    bool tcp_closing; /* its close callback is to come */
    bool closed;      /* by the owner: only waits for libuv */

    struct probe_stream_target target;
    struct buffer request;
    const struct probe_stream_events *events;
    void *context;

    struct sockaddr_storage addresses[PROBE_ADDRESSES_MAX];
    size_t address_count;
    size_t address_next;
    struct errmsg first_error; /* of the first address, as Go tells it; "": none yet */
    struct probe_tls *tls;
    char read_buffer[PROBE_READ_BYTES];
};

/* One write on its way; owns its bytes. */
struct probe_stream_write {
    uv_write_t write;
    struct buffer bytes;
};

/* --- life --- */

static void probe_stream_free_when_idle(struct probe_stream *stream)
{
    if (!stream->closed || stream->looking_up || stream->tcp_open || stream->tcp_closing) {
        return;
    }
    probe_tls_free(stream->tls);
    buffer_deinit(&stream->request);
    stream->magic = 0;
    free(stream);
}

static void probe_stream_try_address(struct probe_stream *stream);

static void probe_stream_on_tcp_closed(uv_handle_t *handle)
{
    struct probe_stream *stream = handle->data;

    assert(stream->magic == PROBE_STREAM_MAGIC);
    stream->tcp_closing = false;
    if (stream->closed) {
        probe_stream_free_when_idle(stream);
    } else {
        probe_stream_try_address(stream);
    }
}

static void probe_stream_close_tcp(struct probe_stream *stream)
{
    if (stream->tcp_open) {
        stream->tcp_open = false;
        stream->tcp_closing = true;
        uv_close((uv_handle_t *)&stream->tcp, probe_stream_on_tcp_closed);
    }
}

void probe_stream_close(struct probe_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    assert(stream->magic == PROBE_STREAM_MAGIC);
    assert(!stream->closed);
    stream->closed = true;
    if (stream->looking_up) {
        (void)uv_cancel((uv_req_t *)&stream->lookup); /* Too late: the callback comes anyway. */
    }
    probe_stream_close_tcp(stream);
    probe_stream_free_when_idle(stream);
}

/* The stream may be gone afterwards. */
static void probe_stream_end(struct probe_stream *stream, const char *problem)
{
    assert(!stream->closed);
    stream->events->on_end(stream->context, problem);
}

/* Go tells errno in the system's words, beginning with a small letter. */
static const char *probe_stream_errno_text(int uv_code)
{
    switch (uv_code) {
    case UV_ECONNREFUSED:
        return "connection refused";
    case UV_ETIMEDOUT:
        return "connection timed out";
    case UV_ENETUNREACH:
        return "network is unreachable";
    case UV_EHOSTUNREACH:
        return "no route to host";
    case UV_ECONNRESET:
        return "connection reset by peer";
    default:
        return uv_strerror(uv_code);
    }
}

/* --- sending and receiving --- */

static void probe_stream_on_sent(uv_write_t *write, int status)
{
    struct probe_stream_write *sent = write->data;

    (void)status; /* A failed write shows in the read as well. */
    buffer_deinit(&sent->bytes);
    free(sent);
}

/* Takes the bytes. Returns 0 or libuv's code. */
static int probe_stream_send(struct probe_stream *stream, struct buffer *bytes)
{
    struct probe_stream_write *sent = calloc(1, sizeof(*sent));

    if (sent == NULL || bytes->failed) {
        free(sent);
        buffer_deinit(bytes);
        return UV_ENOMEM;
    }
    sent->write.data = sent;
    sent->bytes = *bytes;
    *bytes = (struct buffer){0};
    const uv_buf_t out = uv_buf_init(sent->bytes.data, (unsigned)sent->bytes.size);
    const int rc =
        uv_write(&sent->write, (uv_stream_t *)&stream->tcp, &out, 1, probe_stream_on_sent);
    if (rc != 0) {
        buffer_deinit(&sent->bytes);
        free(sent);
    }
    return rc;
}

/* What came from the socket goes through TLS, and what that has to say to the socket. */
static void probe_stream_step_tls(struct probe_stream *stream, struct slice input)
{
    struct buffer cipher = {0};
    struct buffer plain = {0};
    struct errmsg err = {""};
    int rc = 0;
    const enum probe_tls_state state = probe_tls_step(stream->tls, input, &cipher, &plain, &err);

    if (cipher.size > 0) {
        rc = probe_stream_send(stream, &cipher);
    }
    buffer_deinit(&cipher);
    if (plain.size > 0) {
        stream->events->on_receive(stream->context, buffer_slice(&plain));
    }
    buffer_deinit(&plain);
    if (stream->closed) {
        return;
    }
    if (state == PROBE_TLS_ENDED) {
        probe_stream_end(stream, "EOF");
    } else if (state == PROBE_TLS_FAILED) {
        probe_stream_end(stream, err.text);
    } else if (rc != 0) {
        probe_stream_end(stream, uv_strerror(rc));
    }
}

static void probe_stream_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct probe_stream *stream = handle->data;

    (void)suggested;
    *out = uv_buf_init(stream->read_buffer, sizeof(stream->read_buffer));
}

static void probe_stream_on_read(uv_stream_t *tcp, ssize_t count, const uv_buf_t *buffer)
{
    struct probe_stream *stream = tcp->data;

    assert(stream->magic == PROBE_STREAM_MAGIC);
    if (stream->closed || count == 0) {
        return;
    }
    if (count == UV_EOF) {
        probe_stream_end(stream, "EOF");
    } else if (count < 0) {
        struct errmsg err;

        (void)errmsg_set(&err, 0, "read: %s", probe_stream_errno_text((int)count));
        probe_stream_end(stream, err.text);
    } else if (stream->tls != NULL) {
        probe_stream_step_tls(stream, slice_from(buffer->base, (size_t)count));
    } else {
        stream->events->on_receive(stream->context, slice_from(buffer->base, (size_t)count));
    }
}

static void probe_stream_connected(struct probe_stream *stream)
{
    const struct probe_stream_target *target = &stream->target;

    if (stream->request.size == 0) {
        stream->events->on_connect(stream->context);
        return;
    }
    int rc =
        uv_read_start((uv_stream_t *)&stream->tcp, probe_stream_on_alloc, probe_stream_on_read);
    if (rc == 0 && target->tls == NULL) {
        rc = probe_stream_send(stream, &stream->request);
    }
    if (rc != 0) {
        probe_stream_end(stream, uv_strerror(rc));
        return;
    }
    if (target->tls == NULL) {
        return;
    }
    stream->tls = probe_tls_new(
        target->tls, target->tls_server_name[0] != '\0' ? target->tls_server_name : target->host,
        target->tls_skip_verify, buffer_slice(&stream->request));
    if (stream->tls == NULL) {
        probe_stream_end(stream, "out of memory");
        return;
    }
    probe_stream_step_tls(stream, SLICE_EMPTY);
}

/* --- connecting --- */

/* "dial tcp 127.0.0.1:80: connect: ..." or "dial tcp [::1]:80: connect: ...". */
static void probe_stream_explain(const struct sockaddr_storage *address, int uv_code,
                                 struct errmsg *err)
{
    const char *text = probe_stream_errno_text(uv_code);
    char name[INET6_ADDRSTRLEN + 1] = "";

    if (address->ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        (void)uv_ip6_name(&in6, name, sizeof(name));
        (void)errmsg_set(err, uv_code, "dial tcp [%s]:%u: connect: %s", name,
                         (unsigned)ntohs(in6.sin6_port), text);
    } else {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        (void)uv_ip4_name(&in, name, sizeof(name));
        (void)errmsg_set(err, uv_code, "dial tcp %s:%u: connect: %s", name,
                         (unsigned)ntohs(in.sin_port), text);
    }
}

/* One address did not answer: the next one, or, when none is left, the first one's error. */
static void probe_stream_address_failed(struct probe_stream *stream, int uv_code)
{
    if (stream->first_error.text[0] == '\0') {
        probe_stream_explain(&stream->addresses[stream->address_next - 1], uv_code,
                             &stream->first_error);
    }
    if (stream->address_next < stream->address_count) {
        probe_stream_close_tcp(stream); /* Its callback tries the next one. */
    } else {
        probe_stream_end(stream, stream->first_error.text);
    }
}

static void probe_stream_on_connect(uv_connect_t *connect, int status)
{
    struct probe_stream *stream = connect->handle->data;

    assert(stream->magic == PROBE_STREAM_MAGIC);
    if (stream->closed || status == UV_ECANCELED) {
        return;
    }
    if (status != 0) {
        probe_stream_address_failed(stream, status);
    } else {
        probe_stream_connected(stream);
    }
}

static void probe_stream_try_address(struct probe_stream *stream)
{
    assert(!stream->tcp_open);
    assert(!stream->tcp_closing);
    assert(stream->address_next < stream->address_count);
    const struct sockaddr_storage *address = &stream->addresses[stream->address_next++];

    int rc = uv_tcp_init(stream->loop, &stream->tcp);
    if (rc != 0) {
        probe_stream_end(stream, uv_strerror(rc));
        return;
    }
    stream->tcp.data = stream;
    stream->tcp_open = true;
    rc = uv_tcp_connect(&stream->connect, &stream->tcp, (const struct sockaddr *)address,
                        probe_stream_on_connect);
    if (rc != 0) {
        probe_stream_address_failed(stream, rc);
    }
}

static void probe_stream_on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *list)
{
    struct probe_stream *stream = lookup->data;

    assert(stream->magic == PROBE_STREAM_MAGIC);
    stream->looking_up = false;
    for (const struct addrinfo *it = list;
         status == 0 && it != NULL && stream->address_count < PROBE_ADDRESSES_MAX;
         it = it->ai_next) {
        if (it->ai_addrlen <= sizeof(struct sockaddr_storage)) {
            memcpy(&stream->addresses[stream->address_count++], it->ai_addr, it->ai_addrlen);
        }
    }
    uv_freeaddrinfo(list);
    if (stream->closed) {
        probe_stream_free_when_idle(stream);
    } else if (stream->address_count == 0) {
        struct errmsg err;

        (void)errmsg_set(&err, 0, "dial tcp: lookup %s: no such host", stream->target.host);
        probe_stream_end(stream, err.text);
    } else {
        probe_stream_try_address(stream);
    }
}

int probe_stream_open(uv_loop_t *loop, const struct probe_stream_target *target,
                      struct buffer *request, const struct probe_stream_events *events,
                      void *context, struct probe_stream **out)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct probe_stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL) {
        return UV_ENOMEM;
    }
    stream->magic = PROBE_STREAM_MAGIC;
    stream->loop = loop;
    stream->target = *target;
    stream->events = events;
    stream->context = context;
    stream->lookup.data = stream;
    /* Numeric addresses go the same way: libuv's pool answers them without a query. */
    const int rc = uv_getaddrinfo(loop, &stream->lookup, probe_stream_on_lookup,
                                  stream->target.host, stream->target.port, &hints);
    if (rc != 0) {
        free(stream);
        return rc;
    }
    stream->looking_up = true;
    stream->request = *request;
    *request = (struct buffer){0};
    *out = stream;
    return 0;
}
