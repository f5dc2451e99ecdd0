#include "server/agent/probe.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/probe_answer.h"
#include "server/agent/probe_request.h"
#include "server/agent/probe_stream.h"
#include "server/agent/probe_url.h"

#define PROBE_MAGIC 0x50524F42u

struct probe {
    uint32_t magic;
    uv_loop_t *loop;
    uv_timer_t timer; /* its first tick starts the work, the second is the timeout */
    uint64_t timeout_ms;
    bool begun;
    bool over; /* done was called, or the probe cancelled: only waits for libuv */

    bool http;
    struct buffer url;     /* the registration's own, for the output text */
    struct buffer current; /* after redirects; "host:port" for TCP */
    unsigned redirects;
    struct probe_request request;
    struct probe_answer answer;
    uint64_t output_bytes_max;
    struct buffer output;

    struct probe_tls_context *tls_context; /* borrowed: the agent's, which outlives its probes */
    struct probe_stream_target target;
    struct probe_stream *stream; /* NULL: none */

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

/* --- life --- */

static void probe_on_timer_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;

    assert(probe->magic == PROBE_MAGIC);
    assert(probe->stream == NULL);
    buffer_deinit(&probe->url);
    buffer_deinit(&probe->current);
    buffer_deinit(&probe->output);
    probe_request_deinit(&probe->request);
    probe_answer_deinit(&probe->answer);
    probe->magic = 0;
    free(probe);
}

static void probe_close_stream(struct probe *probe)
{
    probe_stream_close(probe->stream);
    probe->stream = NULL;
}

static void probe_end(struct probe *probe)
{
    assert(!probe->over);
    probe->over = true;
    probe_close_stream(probe);
    uv_close((uv_handle_t *)&probe->timer, probe_on_timer_closed);
}

static void probe_finish(struct probe *probe, enum probe_status status)
{
    probe_end(probe);
    probe->done(probe->context, status, buffer_slice(&probe->output));
}

void probe_cancel(struct probe *probe)
{
    assert(probe->magic == PROBE_MAGIC);
    probe_end(probe);
}

/* An HTTP check's errors begin with `Get "http://...": `, as Go's client says it. */
static void probe_fail(struct probe *probe, const char *text)
{
    buffer_clear(&probe->output);
    if (probe->http) {
        const struct slice method = buffer_slice(&probe->request.method);

        for (size_t i = 0; i < method.size; i++) {
            buffer_append_char(&probe->output,
                               i == 0 ? method.data[i] : slice_lower(method.data[i]));
        }
        buffer_append_text(&probe->output, " \"");
        buffer_append_slice(&probe->output, buffer_slice(&probe->current));
        buffer_append_text(&probe->output, "\": ");
    }
    buffer_append_text(&probe->output, text);
    probe_finish(probe, PROBE_CRITICAL);
}

/* --- the answer --- */

static void probe_ask(struct probe *probe);

static bool probe_is_method(const struct probe *probe, struct slice method)
{
    return slice_equal(buffer_slice(&probe->request.method), method);
}

/* What was meant for the check's own host does not go to the one that a redirect leads to. */
static void probe_lead_to(struct probe *probe, bool named, bool with_body)
{
    struct probe_url first;
    struct probe_url to;
    struct buffer problem = {0};

    if (probe_url_parse(buffer_slice(&probe->url), &first, &problem) &&
        probe_url_parse(buffer_slice(&probe->current), &to, &problem)) {
        probe_request_redirect(&probe->request, &first, &to, named, with_body);
    } /* Else it is not asked. */
    buffer_deinit(&problem);
}

/* A redirect that can be followed: sets the new address. */
static bool probe_redirect(struct probe *probe)
{
    const unsigned code = probe_answer_status(&probe->answer);
    const struct slice location = probe_answer_location(&probe->answer);

    if (code != 301 && code != 302 && code != 303 && code != 307 && code != 308) {
        return false;
    }
    if (location.size == 0 || probe->redirects >= PROBE_REDIRECTS_MAX ||
        !(probe_is_method(probe, SLICE_LITERAL("GET")) ||
          probe_is_method(probe, SLICE_LITERAL("HEAD")))) {
        return false;
    }
    probe->redirects++;
    struct probe_url base;
    struct buffer next = {0};
    const bool parsed = probe_url_parse(buffer_slice(&probe->current), &base, &next);
    assert(parsed); /* We asked it. */
    (void)parsed;
    probe_url_resolve(&base, location, &next);
    buffer_deinit(&probe->current);
    probe->current = next;
    probe_lead_to(probe, probe_location_names_host(location), code == 307 || code == 308);
    return true;
}

static void probe_answered(struct probe *probe)
{
    const unsigned code = probe_answer_status(&probe->answer);

    if (probe_redirect(probe)) {
        probe_close_stream(probe);
        probe_ask(probe);
        return;
    }
    buffer_clear(&probe->output);
    buffer_append_text(&probe->output, "HTTP ");
    buffer_append_slice(&probe->output, buffer_slice(&probe->request.method));
    buffer_append_char(&probe->output, ' ');
    buffer_append_slice(&probe->output, buffer_slice(&probe->url));
    buffer_printf(&probe->output, ": %u ", code);
    buffer_append_slice(&probe->output, probe_answer_reason(&probe->answer));
    buffer_append_text(&probe->output, " Output: ");
    buffer_append_slice(&probe->output, probe_answer_body(&probe->answer));
    probe_finish(probe, code >= 200 && code < 300 ? PROBE_PASSING
                        : code == 429             ? PROBE_WARNING
                                                  : PROBE_CRITICAL);
}

static struct probe *probe_of(void *context)
{
    struct probe *probe = context;

    assert(probe->magic == PROBE_MAGIC);
    assert(!probe->over);
    return probe;
}

static void probe_on_receive(void *context, struct slice bytes)
{
    struct probe *probe = probe_of(context);
    const char *problem = NULL;

    if (!probe_answer_feed(&probe->answer, bytes, &problem)) {
        return;
    }
    if (problem != NULL) {
        probe_fail(probe, problem);
    } else {
        probe_answered(probe);
    }
}

static void probe_on_end(void *context, const char *problem)
{
    struct probe *probe = probe_of(context);

    /* A body without a length ends with the connection, and a broken one changes no status. */
    if (probe->http && probe_answer_has_status(&probe->answer)) {
        probe_answered(probe);
    } else {
        probe_fail(probe, problem);
    }
}

static void probe_on_connect(void *context)
{
    struct probe *probe = probe_of(context);

    assert(!probe->http);
    buffer_clear(&probe->output);
    buffer_append_text(&probe->output, "TCP connect ");
    buffer_append_slice(&probe->output, buffer_slice(&probe->current));
    buffer_append_text(&probe->output, ": Success");
    probe_finish(probe, PROBE_PASSING);
}

/* --- the question --- */

static bool probe_set_target(struct probe *probe, struct slice host, struct slice port)
{
    return host.size > 0 && slice_copy_text(host, probe->target.host, sizeof(probe->target.host)) &&
           slice_copy_text(port, probe->target.port, sizeof(probe->target.port));
}

/* Sets the target and writes the request; what prevents it goes to `problem`. */
static void probe_prepare_http(struct probe *probe, struct buffer *request, struct buffer *problem)
{
    struct probe_url url;

    probe_answer_begin(&probe->answer, probe_is_method(probe, SLICE_LITERAL("HEAD")),
                       probe->output_bytes_max);
    problem->failed = probe->current.failed;
    if (!probe_url_parse(buffer_slice(&probe->current), &url, problem)) {
        return;
    }
    const bool secure = probe_url_is_secure(&url);
    const struct slice port = probe_url_port(&url);

    probe->target.tls = secure ? probe->tls_context : NULL;
    if (secure && probe->tls_context == NULL) {
        buffer_append_text(problem, "TLS is not available");
    } else if (!probe_set_target(probe, url.host, port)) {
        buffer_append_text(problem, "http: no usable host in request URL");
    } else {
        probe_request_write(&probe->request, &url, request);
        problem->failed = problem->failed || request->failed;
    }
}

static void probe_prepare_tcp(struct probe *probe, struct buffer *problem)
{
    struct slice host, port;
    const struct slice text = buffer_slice(&probe->current);

    if (!probe_authority_split(text, &host, &port) || !probe_port_is_valid(port) ||
        !probe_set_target(probe, host.size > 0 ? host : SLICE_LITERAL("localhost"), port)) {
        buffer_append_text(problem, "dial tcp: address ");
        buffer_append_slice(problem, text);
        buffer_append_text(problem,
                           port.size == 0 ? ": missing port in address" : ": invalid address");
    }
}

/* Asks `current`: to begin with, and again after a redirect. */
static void probe_ask(struct probe *probe)
{
    static const struct probe_stream_events events = {
        .on_connect = probe_on_connect,
        .on_receive = probe_on_receive,
        .on_end = probe_on_end,
    };
    struct buffer request = {0};
    struct buffer problem = {0};
    int rc = 0;

    assert(probe->stream == NULL);
    if (probe->http) {
        probe_prepare_http(probe, &request, &problem);
    } else {
        probe_prepare_tcp(probe, &problem);
    }
    if (problem.size == 0 && !problem.failed) {
        rc = probe_stream_open(probe->loop, &probe->target, &request, &events, probe,
                               &probe->stream);
    }
    if (problem.failed) {
        probe_fail(probe, "out of memory");
    } else if (rc != 0) {
        probe_fail(probe, uv_strerror(rc));
    } else if (problem.size > 0) {
        buffer_append_char(&problem, '\0');
        probe_fail(probe, problem.failed ? "out of memory" : problem.data);
    }
    buffer_deinit(&request);
    buffer_deinit(&problem);
}

static void probe_timed_out(struct probe *probe)
{
    if (!probe->http) {
        struct buffer text = {0};

        buffer_append_text(&text, "dial tcp ");
        buffer_append_slice(&text, buffer_slice(&probe->current));
        buffer_append_text(&text, ": i/o timeout");
        buffer_append_char(&text, '\0');
        probe_fail(probe, text.failed ? "i/o timeout" : text.data);
        buffer_deinit(&text);
    } else if (probe_answer_has_status(&probe->answer)) {
        probe->redirects = PROBE_REDIRECTS_MAX; /* There is no time left to follow one. */
        probe_answered(probe);
    } else {
        probe_fail(probe, "context deadline exceeded (Client.Timeout exceeded while awaiting "
                          "headers)");
    }
}

static void probe_on_timer(uv_timer_t *timer)
{
    struct probe *probe = probe_of(timer->data);

    if (probe->begun) {
        probe_timed_out(probe);
        return;
    }
    probe->begun = true;
    if (uv_timer_start(timer, probe_on_timer, probe->timeout_ms, 0) != 0) {
        probe_fail(probe, "timer failed");
    } else {
        probe_ask(probe);
    }
}

/* --- start --- */

static uint64_t probe_output_bytes_max(const struct probe_spec *spec)
{
    if (spec->output_bytes_max == 0) {
        return PROBE_OUTPUT_BYTES_DEFAULT;
    }
    return spec->output_bytes_max < PROBE_OUTPUT_BYTES_MAX ? spec->output_bytes_max
                                                           : PROBE_OUTPUT_BYTES_MAX;
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
    probe->output_bytes_max = probe_output_bytes_max(spec);
    probe->redirects = spec->disable_redirects ? PROBE_REDIRECTS_MAX : 0;
    probe->tls_context = spec->tls;
    probe->target.tls_skip_verify = spec->tls_skip_verify;
    /* "" when it is none that a certificate could have: then the host's name counts. */
    (void)slice_copy_text(spec->tls_server_name, probe->target.tls_server_name,
                          sizeof(probe->target.tls_server_name));
    buffer_append_slice(&probe->url, probe->http ? spec->http : spec->tcp);
    buffer_append_slice(&probe->current, probe->http ? spec->http : spec->tcp);
    probe_request_init(&probe->request, spec->method, spec->header, spec->body);

    /* From a timer, so that `done` never comes from inside this call. */
    int rc = uv_timer_init(loop, &probe->timer);
    assert(rc == 0); /* Cannot fail. */
    probe->timer.data = probe;
    rc = uv_timer_start(&probe->timer, probe_on_timer, 0, 0);
    assert(rc == 0); /* Fails for closing handles only. */
    (void)rc;
    return probe;
}
