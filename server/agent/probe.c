#include "server/agent/probe.h"

#include <assert.h>
#include <llhttp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_MAGIC 0x50524F42u

enum {
    PROBE_READ_BYTES = 16 * 1024,
    PROBE_STATUS_TEXT_BYTES_MAX = 256,
    PROBE_LOCATION_BYTES_MAX = 4096,
    PROBE_HOST_BYTES_MAX = 255,
    PROBE_PORT_BYTES_MAX = 5,
};

struct probe {
    uint32_t magic;
    uv_loop_t *loop;
    uv_timer_t timer; /* the timeout; with 0 ms, tells a failure that was known at once */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    uv_getaddrinfo_t lookup;
    bool tcp_open;     /* the handle is initialised and not yet closing */
    bool tcp_closing;  /* its close callback is to come */
    bool looking_up;   /* the request is with libuv */
    bool timer_closed; /* its close callback has come */
    bool over;         /* done was called, or the probe cancelled: only waits for libuv */
    bool retry;        /* when the socket is closed, try the next address */

    bool http;
    struct buffer url;     /* the request's own, for its output text */
    struct buffer current; /* after redirects */
    struct buffer method;
    struct buffer body;
    struct buffer header; /* prepared lines of the definition */
    struct buffer host_override;
    struct buffer request;
    struct buffer output;
    char host[PROBE_HOST_BYTES_MAX + 1];
    char port[PROBE_PORT_BYTES_MAX + 1];
    struct sockaddr_storage addresses[PROBE_ADDRESSES_MAX];
    size_t address_count;
    size_t address_next;
    struct buffer first_error; /* of the first address, as Go tells it */

    llhttp_t parser;
    llhttp_settings_t settings;
    char read_buffer[PROBE_READ_BYTES];
    uint64_t response_bytes;
    struct buffer reason;
    struct buffer answer; /* at most twice output_bytes_max: cut when it grows beyond */
    struct buffer field;
    struct buffer location;
    bool in_location;
    bool head_done; /* the status counts from here on, whatever becomes of the body */
    bool complete;
    uint64_t output_bytes_max;
    uint64_t timeout_ms;
    unsigned redirects;

    bool secure; /* what is asked now is https:// */
    bool tls_skip_verify;
    char tls_server_name[PROBE_HOST_BYTES_MAX + 1]; /* "": the URL's host */
    struct probe_tls_context *tls_context; /* borrowed: the agent's, which outlives its probes */
    struct probe_tls *tls;

    probe_done done;
    void *context;
};

const char *probe_status_text(enum probe_status status)
{
    switch (status) {
    case PROBE_PASSING:
        return "passing";
    case PROBE_WARNING:
        return "warning";
    case PROBE_CRITICAL:
        return "critical";
    }
    return "critical";
}

static void probe_attempt(struct probe *probe);
static void probe_begin(struct probe *probe);

/* --- life --- */

static void probe_free_when_idle(struct probe *probe)
{
    if (!probe->over || probe->tcp_open || probe->tcp_closing || probe->looking_up ||
        !probe->timer_closed) {
        return;
    }
    buffer_deinit(&probe->url);
    buffer_deinit(&probe->current);
    buffer_deinit(&probe->method);
    buffer_deinit(&probe->body);
    buffer_deinit(&probe->header);
    buffer_deinit(&probe->host_override);
    buffer_deinit(&probe->request);
    buffer_deinit(&probe->output);
    buffer_deinit(&probe->first_error);
    buffer_deinit(&probe->reason);
    buffer_deinit(&probe->answer);
    buffer_deinit(&probe->field);
    buffer_deinit(&probe->location);
    probe_tls_free(probe->tls);
    probe->magic = 0;
    free(probe);
}

static void probe_on_timer_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;

    assert(probe->magic == PROBE_MAGIC);
    probe->timer_closed = true;
    probe_free_when_idle(probe);
}

static void probe_on_tcp_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;

    assert(probe->magic == PROBE_MAGIC);
    probe->tcp_closing = false;
    if (probe->retry && !probe->over) {
        probe->retry = false;
        probe_attempt(probe);
        return;
    }
    probe_free_when_idle(probe);
}

static void probe_close_tcp(struct probe *probe)
{
    if (probe->tcp_open) {
        probe->tcp_open = false;
        probe->tcp_closing = true;
        uv_close((uv_handle_t *)&probe->tcp, probe_on_tcp_closed);
    }
}

static void probe_end(struct probe *probe)
{
    assert(!probe->over);
    probe->over = true;
    if (probe->looking_up) {
        (void)uv_cancel((uv_req_t *)&probe->lookup); /* Too late: the callback comes anyway. */
    }
    probe_close_tcp(probe);
    uv_close((uv_handle_t *)&probe->timer, probe_on_timer_closed);
}

static void probe_finish(struct probe *probe, enum probe_status status)
{
    assert(!probe->over);
    probe_end(probe);
    probe->done(probe->context, status, buffer_slice(&probe->output));
}

void probe_cancel(struct probe *probe)
{
    assert(probe->magic == PROBE_MAGIC);
    probe_end(probe);
}

/* --- texts --- */

/* `Get "http://...": ` in front of an HTTP check's errors, as Go's client says it. */
static void probe_put_operation(struct probe *probe, struct buffer *out)
{
    if (!probe->http) {
        return;
    }
    const struct slice method = buffer_slice(&probe->method);
    for (size_t i = 0; i < method.size; i++) {
        buffer_append_char(out, i == 0 ? method.data[i] : slice_lower(method.data[i]));
    }
    buffer_append_text(out, " \"");
    buffer_append_slice(out, buffer_slice(&probe->current));
    buffer_append_text(out, "\": ");
}

static void probe_fail(struct probe *probe, const char *text)
{
    buffer_clear(&probe->output);
    probe_put_operation(probe, &probe->output);
    buffer_append_text(&probe->output, text);
    probe_finish(probe, PROBE_CRITICAL);
}

/* "127.0.0.1:80" or "[::1]:80". */
static void probe_put_address(struct buffer *out, const struct sockaddr_storage *address)
{
    char text[INET6_ADDRSTRLEN + 1] = "";

    if (address->ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        (void)uv_ip6_name(&in6, text, sizeof(text));
        buffer_printf(out, "[%s]:%u", text, (unsigned)ntohs(in6.sin6_port));
    } else {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        (void)uv_ip4_name(&in, text, sizeof(text));
        buffer_printf(out, "%s:%u", text, (unsigned)ntohs(in.sin_port));
    }
}

/* Go tells errno in the system's words, beginning with a small letter. */
static void probe_put_errno(struct buffer *out, int uv_code)
{
    const char *text = uv_code == UV_ECONNREFUSED   ? "connection refused"
                       : uv_code == UV_ETIMEDOUT    ? "connection timed out"
                       : uv_code == UV_ENETUNREACH  ? "network is unreachable"
                       : uv_code == UV_EHOSTUNREACH ? "no route to host"
                       : uv_code == UV_ECONNRESET   ? "connection reset by peer"
                                                    : uv_strerror(uv_code);
    buffer_append_text(out, text);
}

/* --- HTTP answer --- */

static struct probe *probe_of_parser(llhttp_t *parser)
{
    struct probe *probe = parser->data;

    assert(probe->magic == PROBE_MAGIC);
    return probe;
}

static int probe_on_status(llhttp_t *parser, const char *at, size_t length)
{
    struct probe *probe = probe_of_parser(parser);

    if (probe->reason.size + length <= PROBE_STATUS_TEXT_BYTES_MAX) {
        buffer_append(&probe->reason, at, length);
    }
    return 0;
}

static int probe_on_field(llhttp_t *parser, const char *at, size_t length)
{
    struct probe *probe = probe_of_parser(parser);

    if (probe->in_location || probe->field.size + length > PROBE_STATUS_TEXT_BYTES_MAX) {
        buffer_clear(&probe->field);
    }
    probe->in_location = false;
    if (length <= PROBE_STATUS_TEXT_BYTES_MAX) {
        buffer_append(&probe->field, at, length);
    }
    return 0;
}

static int probe_on_value(llhttp_t *parser, const char *at, size_t length)
{
    struct probe *probe = probe_of_parser(parser);

    if (slice_equal_nocase(buffer_slice(&probe->field), SLICE_LITERAL("location")) &&
        probe->location.size + length <= PROBE_LOCATION_BYTES_MAX) {
        probe->in_location = true;
        buffer_append(&probe->location, at, length);
    }
    return 0;
}

static int probe_on_value_complete(llhttp_t *parser)
{
    struct probe *probe = probe_of_parser(parser);

    buffer_clear(&probe->field);
    probe->in_location = false;
    return 0;
}

static int probe_on_headers_complete(llhttp_t *parser)
{
    struct probe *probe = probe_of_parser(parser);

    probe->head_done = probe->parser.status_code >= 200;
    /* 1 tells llhttp that no body follows, whatever the headers say. */
    return slice_equal(buffer_slice(&probe->method), SLICE_LITERAL("HEAD")) ? 1 : 0;
}

static int probe_on_body(llhttp_t *parser, const char *at, size_t length)
{
    struct probe *probe = probe_of_parser(parser);
    struct buffer *answer = &probe->answer;

    buffer_append(answer, at, length);
    if (answer->size > 2 * probe->output_bytes_max) {
        const size_t drop = answer->size - (size_t)probe->output_bytes_max;
        memmove(answer->data, answer->data + drop, (size_t)probe->output_bytes_max);
        answer->size = (size_t)probe->output_bytes_max;
    }
    return 0;
}

static int probe_on_message_complete(llhttp_t *parser)
{
    struct probe *probe = probe_of_parser(parser);

    if (probe->parser.status_code >= 100 && probe->parser.status_code < 200) {
        buffer_clear(&probe->reason); /* An interim answer; the real one follows. */
        return 0;
    }
    probe->complete = true;
    return HPE_PAUSED;
}

/* A redirect that can be followed: sets the new address. */
static bool probe_redirect(struct probe *probe)
{
    const unsigned code = probe->parser.status_code;
    const struct slice method = buffer_slice(&probe->method);
    const struct slice location = buffer_slice(&probe->location);

    if (code != 301 && code != 302 && code != 303 && code != 307 && code != 308) {
        return false;
    }
    if (location.size == 0 || probe->redirects >= PROBE_REDIRECTS_MAX ||
        !(slice_equal(method, SLICE_LITERAL("GET")) ||
          slice_equal(method, SLICE_LITERAL("HEAD")))) {
        return false;
    }
    probe->redirects++;
    struct buffer next = {0};
    if (location.data[0] == '/') {
        struct probe_url url;
        struct buffer problem = {0};
        const bool parsed = probe_url_parse(buffer_slice(&probe->current), &url, &problem);
        buffer_deinit(&problem);
        assert(parsed); /* We asked it. */
        buffer_append_slice(&next, url.scheme);
        buffer_append_text(&next, "://");
        buffer_append_slice(&next, url.authority);
    }
    buffer_append_slice(&next, location);
    buffer_deinit(&probe->current);
    probe->current = next;
    return true;
}

static void probe_answered(struct probe *probe)
{
    const unsigned code = probe->parser.status_code;

    if (probe_redirect(probe)) {
        probe_close_tcp(probe);
        probe_begin(probe);
        return;
    }
    if (probe->answer.size > probe->output_bytes_max) {
        const size_t drop = probe->answer.size - (size_t)probe->output_bytes_max;
        memmove(probe->answer.data, probe->answer.data + drop, (size_t)probe->output_bytes_max);
        probe->answer.size = (size_t)probe->output_bytes_max;
    }
    buffer_clear(&probe->output);
    buffer_append_text(&probe->output, "HTTP ");
    buffer_append_slice(&probe->output, buffer_slice(&probe->method));
    buffer_append_char(&probe->output, ' ');
    buffer_append_slice(&probe->output, buffer_slice(&probe->url));
    buffer_printf(&probe->output, ": %u ", code);
    buffer_append_slice(&probe->output, buffer_slice(&probe->reason));
    buffer_append_text(&probe->output, " Output: ");
    buffer_append_slice(&probe->output, buffer_slice(&probe->answer));
    probe_finish(probe, code >= 200 && code < 300 ? PROBE_PASSING
                        : code == 429             ? PROBE_WARNING
                                                  : PROBE_CRITICAL);
}

static void probe_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct probe *probe = handle->data;

    (void)suggested;
    *out = uv_buf_init(probe->read_buffer, sizeof(probe->read_buffer));
}

static void probe_on_end_of_stream(struct probe *probe, int code)
{
    if (probe->head_done) {
        probe_answered(probe); /* A body without a length ends with the connection. */
        return;
    }
    if (code == UV_EOF) {
        probe_fail(probe, "EOF");
        return;
    }
    struct buffer text = {0};
    buffer_append_text(&text, "read: ");
    probe_put_errno(&text, code);
    buffer_append_char(&text, '\0');
    probe_fail(probe, text.failed ? "read failed" : text.data);
    buffer_deinit(&text);
}

/* Bytes of the answer, decrypted. */
static void probe_parse(struct probe *probe, struct slice bytes)
{
    const llhttp_errno_t rc = llhttp_execute(&probe->parser, bytes.data, bytes.size);
    probe->response_bytes += bytes.size;
    const bool enough = probe->response_bytes > PROBE_RESPONSE_BYTES_MAX;
    if (probe->complete || (probe->head_done && (rc != HPE_OK || enough))) {
        probe_answered(probe);
    } else if (rc != HPE_OK) {
        probe_fail(probe, "net/http: HTTP/1.x transport connection broken: malformed HTTP "
                          "response");
    } else if (enough) {
        probe_fail(probe, "net/http: server response headers exceeded 1048576 bytes; aborted");
    }
}

/* --- TLS --- */

struct probe_write {
    uv_write_t write;
    struct buffer bytes;
};

static void probe_on_sent(uv_write_t *write, int status)
{
    struct probe_write *sent = write->data;

    (void)status; /* A failed write shows in the read as well. */
    buffer_deinit(&sent->bytes);
    free(sent);
}

/* Takes the bytes. */
static int probe_send(struct probe *probe, struct buffer *bytes)
{
    struct probe_write *sent = calloc(1, sizeof(*sent));

    if (sent == NULL || bytes->failed) {
        free(sent);
        buffer_deinit(bytes);
        return UV_ENOMEM;
    }
    sent->write.data = sent;
    sent->bytes = *bytes;
    *bytes = (struct buffer){0};
    const uv_buf_t out = uv_buf_init(sent->bytes.data, (unsigned)sent->bytes.size);
    const int rc = uv_write(&sent->write, (uv_stream_t *)&probe->tcp, &out, 1, probe_on_sent);
    if (rc != 0) {
        buffer_deinit(&sent->bytes);
        free(sent);
    }
    return rc;
}

/* What came from the socket goes through TLS, and what that has to say to the socket. */
static void probe_on_cipher(struct probe *probe, struct slice input)
{
    struct buffer cipher = {0};
    struct buffer plain = {0};
    struct errmsg err = {""};
    int rc = 0;
    const enum probe_tls_state state = probe_tls_step(probe->tls, input, &cipher, &plain, &err);

    if (cipher.size > 0) {
        rc = probe_send(probe, &cipher);
    }
    buffer_deinit(&cipher);
    if (plain.size > 0) {
        probe_parse(probe, buffer_slice(&plain));
    }
    buffer_deinit(&plain);
    if (probe->over || !probe->tcp_open) {
        return; /* The answer was complete, or is a redirect. */
    }
    if (state == PROBE_TLS_ENDED) {
        probe_on_end_of_stream(probe, UV_EOF);
    } else if (state == PROBE_TLS_FAILED) {
        probe_fail(probe, err.text);
    } else if (rc != 0) {
        probe_fail(probe, uv_strerror(rc));
    }
}

static void probe_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct probe *probe = stream->data;

    assert(probe->magic == PROBE_MAGIC);
    if (probe->over || count == 0) {
        return;
    }
    if (count < 0) {
        probe_on_end_of_stream(probe, (int)count);
    } else if (probe->secure) {
        probe_on_cipher(probe, slice_from(buffer->base, (size_t)count));
    } else {
        probe_parse(probe, slice_from(buffer->base, (size_t)count));
    }
}

/* --- connecting --- */

static void probe_on_written(uv_write_t *write, int status)
{
    /* A failed write shows in the read as well. */
    (void)write;
    (void)status;
}

static void probe_connected_tls(struct probe *probe)
{
    const char *name = probe->tls_server_name[0] != '\0' ? probe->tls_server_name : probe->host;

    probe_tls_free(probe->tls);
    probe->tls = probe_tls_new(probe->tls_context, name, probe->tls_skip_verify,
                               buffer_slice(&probe->request));
    if (probe->tls == NULL) {
        probe_fail(probe, "out of memory");
        return;
    }
    const int rc = uv_read_start((uv_stream_t *)&probe->tcp, probe_on_alloc, probe_on_read);
    if (rc != 0) {
        probe_fail(probe, uv_strerror(rc));
        return;
    }
    probe_on_cipher(probe, SLICE_EMPTY);
}

static void probe_connected(struct probe *probe)
{
    if (!probe->http) {
        buffer_clear(&probe->output);
        buffer_append_text(&probe->output, "TCP connect ");
        buffer_append_slice(&probe->output, buffer_slice(&probe->current));
        buffer_append_text(&probe->output, ": Success");
        probe_finish(probe, PROBE_PASSING);
        return;
    }
    llhttp_settings_init(&probe->settings);
    probe->settings.on_status = probe_on_status;
    probe->settings.on_header_field = probe_on_field;
    probe->settings.on_header_value = probe_on_value;
    probe->settings.on_header_value_complete = probe_on_value_complete;
    probe->settings.on_headers_complete = probe_on_headers_complete;
    probe->settings.on_body = probe_on_body;
    probe->settings.on_message_complete = probe_on_message_complete;
    llhttp_init(&probe->parser, HTTP_RESPONSE, &probe->settings);
    probe->parser.data = probe;
    if (probe->secure) {
        probe_connected_tls(probe);
        return;
    }

    uv_buf_t out = uv_buf_init(probe->request.data, (unsigned)probe->request.size);
    int rc = uv_write(&probe->write, (uv_stream_t *)&probe->tcp, &out, 1, probe_on_written);
    if (rc == 0) {
        rc = uv_read_start((uv_stream_t *)&probe->tcp, probe_on_alloc, probe_on_read);
    }
    if (rc != 0) {
        probe_fail(probe, uv_strerror(rc));
    }
}

/* One address did not answer: the next one, or, when none is left, the first one's error. */
static void probe_attempt_failed(struct probe *probe, int code)
{
    if (probe->first_error.size == 0) {
        buffer_append_text(&probe->first_error, "dial tcp ");
        probe_put_address(&probe->first_error, &probe->addresses[probe->address_next - 1]);
        buffer_append_text(&probe->first_error, ": connect: ");
        probe_put_errno(&probe->first_error, code);
        buffer_append_char(&probe->first_error, '\0');
    }
    if (probe->address_next < probe->address_count) {
        probe->retry = true;
        probe_close_tcp(probe);
        return;
    }
    probe_fail(probe, probe->first_error.failed ? "dial tcp failed" : probe->first_error.data);
}

static void probe_on_connect(uv_connect_t *connect, int status)
{
    struct probe *probe = connect->handle->data;

    assert(probe->magic == PROBE_MAGIC);
    if (probe->over || status == UV_ECANCELED) {
        return;
    }
    if (status != 0) {
        probe_attempt_failed(probe, status);
        return;
    }
    probe_connected(probe);
}

static void probe_attempt(struct probe *probe)
{
    assert(!probe->tcp_open);
    assert(!probe->tcp_closing);
    assert(probe->address_next < probe->address_count);
    const struct sockaddr_storage *address = &probe->addresses[probe->address_next++];

    int rc = uv_tcp_init(probe->loop, &probe->tcp);
    if (rc != 0) {
        probe_fail(probe, uv_strerror(rc));
        return;
    }
    probe->tcp.data = probe;
    probe->tcp_open = true;
    rc = uv_tcp_connect(&probe->connect, &probe->tcp, (const struct sockaddr *)address,
                        probe_on_connect);
    if (rc != 0) {
        probe_attempt_failed(probe, rc);
    }
}

static void probe_on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *list)
{
    struct probe *probe = lookup->data;

    assert(probe->magic == PROBE_MAGIC);
    probe->looking_up = false;
    if (probe->over) {
        uv_freeaddrinfo(list);
        probe_free_when_idle(probe);
        return;
    }
    for (const struct addrinfo *it = list;
         status == 0 && it != NULL && probe->address_count < PROBE_ADDRESSES_MAX;
         it = it->ai_next) {
        if (it->ai_addrlen <= sizeof(struct sockaddr_storage)) {
            memcpy(&probe->addresses[probe->address_count++], it->ai_addr, it->ai_addrlen);
        }
    }
    uv_freeaddrinfo(list);
    if (probe->address_count == 0) {
        char text[PROBE_HOST_BYTES_MAX + 64];
        (void)snprintf(text, sizeof(text), "dial tcp: lookup %s: no such host", probe->host);
        probe_fail(probe, text);
        return;
    }
    if (!probe->tcp_closing) {
        probe_attempt(probe);
    } else {
        probe->retry = true; /* A redirect's old connection is still closing. */
    }
}

static void probe_lookup(struct probe *probe)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    probe->address_count = 0;
    probe->address_next = 0;
    buffer_clear(&probe->first_error);
    probe->lookup.data = probe;
    /* Numeric addresses go the same way: libuv's pool answers them without a query. */
    const int rc = uv_getaddrinfo(probe->loop, &probe->lookup, probe_on_lookup, probe->host,
                                  probe->port, &hints);
    if (rc != 0) {
        probe_fail(probe, uv_strerror(rc));
        return;
    }
    probe->looking_up = true;
}

/* --- what to ask --- */

static bool probe_copy_text(char *out, size_t out_bytes, struct slice text)
{
    if (text.size == 0 || text.size >= out_bytes || memchr(text.data, '\0', text.size) != NULL) {
        return false;
    }
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
    return true;
}

static bool probe_port_valid(struct slice port)
{
    unsigned long value = 0;

    for (size_t i = 0; i < port.size; i++) {
        if (port.data[i] < '0' || port.data[i] > '9' || port.size > PROBE_PORT_BYTES_MAX) {
            return false;
        }
        value = value * 10 + (unsigned long)(port.data[i] - '0');
    }
    return port.size > 0 && value <= UINT16_MAX;
}

/* Splits "host:port" and "[host]:port"; the port may be missing (empty). */
static bool probe_split_authority(struct slice text, struct slice *host, struct slice *port)
{
    const char *const end = text.data + text.size;

    *port = SLICE_EMPTY;
    if (text.size > 0 && text.data[0] == '[') {
        const char *close = memchr(text.data, ']', text.size);
        if (close == NULL || (close + 1 < end && close[1] != ':')) {
            return false;
        }
        *host = slice_from(text.data + 1, (size_t)(close - text.data - 1));
        if (close + 1 < end) {
            *port = slice_from(close + 2, (size_t)(end - close - 2));
        }
        return true;
    }
    const char *colon = text.size == 0 ? NULL : memchr(text.data, ':', text.size);
    if (colon == NULL) {
        *host = text;
        return true;
    }
    *host = slice_from(text.data, (size_t)(colon - text.data));
    *port = slice_from(colon + 1, (size_t)(end - colon - 1));
    return memchr(port->data, ':', port->size) == NULL;
}

bool probe_url_parse(struct slice text, struct probe_url *out, struct buffer *problem)
{
    const char *const end = text.data + text.size;

    for (size_t i = 0; i < text.size; i++) {
        /* Bytes that would end a line of the request, or that no URL has. */
        if ((unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f) {
            buffer_append_text(problem, "net/url: invalid control character in URL");
            return false;
        }
    }
    const char *mark = memmem(text.data, text.size, "://", 3);
    out->scheme = mark == NULL ? SLICE_EMPTY : slice_from(text.data, (size_t)(mark - text.data));
    if (mark == NULL || (!slice_equal_nocase(out->scheme, SLICE_LITERAL("http")) &&
                         !slice_equal_nocase(out->scheme, SLICE_LITERAL("https")))) {
        buffer_append_text(problem, "unsupported protocol scheme \"");
        buffer_append_slice(problem, out->scheme);
        buffer_append_char(problem, '"');
        return false;
    }
    const char *at = mark + 3;
    const char *stop = at;
    while (stop < end && *stop != '/' && *stop != '?' && *stop != '#') {
        stop++;
    }
    out->authority = slice_from(at, (size_t)(stop - at));
    const size_t left = stop < end ? (size_t)(end - stop) : 0;
    const char *fragment = left > 0 ? memchr(stop, '#', left) : NULL;
    out->path = slice_from(stop, (size_t)((fragment == NULL ? end : fragment) - stop));
    if (out->authority.size == 0 || memchr(at, '@', out->authority.size) != NULL ||
        memchr(at, ' ', out->authority.size) != NULL ||
        !probe_split_authority(out->authority, &out->host, &out->port) || out->host.size == 0 ||
        (out->port.size > 0 && !probe_port_valid(out->port))) {
        buffer_append_text(problem, "http: no usable host in request URL");
        return false;
    }
    return true;
}

/* The request head as Consul's agent sends it, but for Accept-Encoding: we could not unpack. */
static void probe_put_request(struct probe *probe, const struct probe_url *url)
{
    struct buffer *out = &probe->request;

    buffer_clear(out);
    buffer_append_slice(out, buffer_slice(&probe->method));
    buffer_append_char(out, ' ');
    if (url->path.size == 0 || url->path.data[0] != '/') {
        buffer_append_char(out, '/');
    }
    for (size_t i = 0; i < url->path.size; i++) {
        if (url->path.data[i] == ' ') {
            buffer_append_text(out, "%20");
        } else {
            buffer_append_char(out, url->path.data[i]);
        }
    }
    buffer_append_text(out, " HTTP/1.1\r\nHost: ");
    buffer_append_slice(out, probe->host_override.size > 0 ? buffer_slice(&probe->host_override)
                                                           : url->authority);
    buffer_append_text(out, "\r\n");
    buffer_append_slice(out, buffer_slice(&probe->header));
    if (probe->body.size > 0) {
        buffer_printf(out, "Content-Length: %zu\r\n", probe->body.size);
    }
    buffer_append_text(out, "Connection: close\r\n\r\n");
    buffer_append_slice(out, buffer_slice(&probe->body));
}

/* Starts on probe->current. May be called again after a redirect. */
static void probe_begin(struct probe *probe)
{
    struct buffer problem = {0};
    struct probe_url url;

    probe->head_done = false;
    probe->complete = false;
    probe->response_bytes = 0;
    buffer_clear(&probe->reason);
    buffer_clear(&probe->answer);
    buffer_clear(&probe->location);
    buffer_clear(&probe->field);
    if (probe_url_parse(buffer_slice(&probe->current), &url, &problem)) {
        probe->secure = slice_equal_nocase(url.scheme, SLICE_LITERAL("https"));
        const struct slice port = probe->secure ? SLICE_LITERAL("443") : SLICE_LITERAL("80");

        if (probe->secure && probe->tls_context == NULL) {
            buffer_append_text(&problem, "TLS is not available");
        } else if (!probe_copy_text(probe->host, sizeof(probe->host), url.host) ||
                   !probe_copy_text(probe->port, sizeof(probe->port),
                                    url.port.size > 0 ? url.port : port)) {
            buffer_append_text(&problem, "http: no usable host in request URL");
        } else {
            probe_put_request(probe, &url);
            if (probe->request.failed) {
                buffer_append_text(&problem, "out of memory");
            }
        }
    }
    if (problem.size > 0 || problem.failed) {
        buffer_append_char(&problem, '\0');
        probe_fail(probe, problem.failed ? "out of memory" : problem.data);
    } else {
        probe_lookup(probe);
    }
    buffer_deinit(&problem);
}

static void probe_begin_tcp(struct probe *probe)
{
    struct slice host, port;
    const struct slice text = buffer_slice(&probe->current);

    if (!probe_split_authority(text, &host, &port) || port.size == 0 ||
        !probe_copy_text(probe->host, sizeof(probe->host),
                         host.size > 0 ? host : SLICE_LITERAL("localhost")) ||
        !probe_port_valid(port) || !probe_copy_text(probe->port, sizeof(probe->port), port)) {
        struct buffer problem = {0};
        buffer_append_text(&problem, "dial tcp: address ");
        buffer_append_slice(&problem, text);
        buffer_append_text(&problem,
                           port.size == 0 ? ": missing port in address" : ": invalid address");
        buffer_append_char(&problem, '\0');
        probe_fail(probe, problem.failed ? "out of memory" : problem.data);
        buffer_deinit(&problem);
        return;
    }
    probe_lookup(probe);
}

/* A header's name and value, and the method, go into the request as they are. */
static bool probe_token_valid(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] <= 0x20 || text.data[i] >= 0x7f ||
            strchr("()<>@,;:\\\"/[]?={}", text.data[i]) != NULL) {
            return false;
        }
    }
    return text.size > 0;
}

static bool probe_value_valid(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (((unsigned char)text.data[i] < 0x20 && text.data[i] != '\t') || text.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static void probe_put_header(struct probe *probe, const char *name, struct slice value)
{
    static const char *const ours[] = {"Connection", "Content-Length", "Transfer-Encoding"};
    const struct slice key = slice_from_text(name);

    if (!probe_token_valid(key) || !probe_value_valid(value)) {
        return; /* It could end the request early. */
    }
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (slice_equal_nocase(key, slice_from_text(ours[i]))) {
            return;
        }
    }
    if (slice_equal_nocase(key, SLICE_LITERAL("host"))) {
        buffer_clear(&probe->host_override);
        buffer_append_slice(&probe->host_override, value);
        return;
    }
    buffer_append_text(&probe->header, name);
    buffer_append_text(&probe->header, ": ");
    buffer_append_slice(&probe->header, value);
    buffer_append_text(&probe->header, "\r\n");
}

static void probe_put_headers(struct probe *probe, const json_t *header)
{
    bool agent_given = false;
    bool accept_given = false;
    union {
        const json_t *in;
        json_t *out; /* jansson's iteration takes a pointer to non-const, though it only reads */
    } pun = {.in = header};
    const char *name;
    json_t *values;

    json_object_foreach(pun.out, name, values)
    {
        const struct slice key = slice_from_text(name);
        size_t i;
        json_t *value;

        agent_given = agent_given || slice_equal_nocase(key, SLICE_LITERAL("user-agent"));
        accept_given = accept_given || slice_equal_nocase(key, SLICE_LITERAL("accept"));
        json_array_foreach(values, i, value)
        {
            probe_put_header(probe, name,
                             slice_from(json_string_value(value), json_string_length(value)));
        }
    }
    if (!agent_given) {
        probe_put_header(probe, "User-Agent", SLICE_LITERAL("Consul Health Check"));
    }
    if (!accept_given) {
        probe_put_header(probe, "Accept", SLICE_LITERAL("text/plain, text/*, */*"));
    }
}

static void probe_on_timer(uv_timer_t *timer)
{
    struct probe *probe = timer->data;

    assert(probe->magic == PROBE_MAGIC);
    if (probe->timeout_ms > 0) {
        /* The first tick starts the work, so that `done` never comes from inside probe_start. */
        const uint64_t timeout_ms = probe->timeout_ms;
        probe->timeout_ms = 0;
        if (uv_timer_start(timer, probe_on_timer, timeout_ms, 0) != 0) {
            probe_fail(probe, "timer failed");
        } else if (probe->http) {
            probe_begin(probe);
        } else {
            probe_begin_tcp(probe);
        }
        return;
    }
    if (probe->head_done) {
        probe->redirects = PROBE_REDIRECTS_MAX; /* There is no time left to follow one. */
        probe_answered(probe);
        return;
    }
    if (probe->http) {
        probe_fail(probe, "context deadline exceeded (Client.Timeout exceeded while awaiting "
                          "headers)");
        return;
    }
    struct buffer text = {0};
    buffer_append_text(&text, "dial tcp ");
    buffer_append_slice(&text, buffer_slice(&probe->current));
    buffer_append_text(&text, ": i/o timeout");
    buffer_append_char(&text, '\0');
    probe_fail(probe, text.failed ? "i/o timeout" : text.data);
    buffer_deinit(&text);
}

struct probe *probe_start(uv_loop_t *loop, const struct probe_spec *spec, probe_done done,
                          void *context)
{
    struct probe *probe = calloc(1, sizeof(*probe));

    assert(spec->timeout_ms > 0);
    if (probe == NULL) {
        return NULL;
    }
    probe->magic = PROBE_MAGIC;
    probe->loop = loop;
    probe->done = done;
    probe->context = context;
    probe->http = spec->http.size > 0;
    probe->timeout_ms = spec->timeout_ms;
    probe->output_bytes_max = spec->output_bytes_max == 0 ? PROBE_OUTPUT_BYTES_DEFAULT
                              : spec->output_bytes_max > PROBE_OUTPUT_BYTES_MAX
                                  ? PROBE_OUTPUT_BYTES_MAX
                                  : spec->output_bytes_max;
    probe->redirects = spec->disable_redirects ? PROBE_REDIRECTS_MAX : 0;
    probe->tls_context = spec->tls;
    probe->tls_skip_verify = spec->tls_skip_verify;
    if (spec->tls_server_name.size > 0) {
        /* One that is too long is no name that a certificate could have. */
        (void)snprintf(probe->tls_server_name, sizeof(probe->tls_server_name), "%.*s",
                       (int)spec->tls_server_name.size, spec->tls_server_name.data);
    }
    buffer_append_slice(&probe->url, probe->http ? spec->http : spec->tcp);
    buffer_append_slice(&probe->current, probe->http ? spec->http : spec->tcp);
    buffer_append_slice(&probe->method,
                        probe_token_valid(spec->method) ? spec->method : SLICE_LITERAL("GET"));
    buffer_append_slice(&probe->body, spec->body);
    probe_put_headers(probe, spec->header);

    int rc = uv_timer_init(loop, &probe->timer);
    assert(rc == 0); /* Cannot fail. */
    probe->timer.data = probe;
    rc = uv_timer_start(&probe->timer, probe_on_timer, 0, 0);
    assert(rc == 0); /* Fails for closing handles only. */
    (void)rc;
    return probe;
}
