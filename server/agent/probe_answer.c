#include "server/agent/probe_answer.h"

#include <assert.h>
#include <string.h>

enum {
    PROBE_STATUS_TEXT_BYTES_MAX = 256,
    PROBE_FIELD_BYTES_MAX = 16,
    PROBE_LOCATION_BYTES_MAX = 4096,
};

static int probe_answer_on_status(llhttp_t *parser, const char *at, size_t length)
{
    struct probe_answer *answer = parser->data;

    if (answer->reason.size + length <= PROBE_STATUS_TEXT_BYTES_MAX) {
        buffer_append(&answer->reason, at, length);
    }
    return 0;
}

/* A name that is longer than ours is cut, so that it is no longer ours. */
static int probe_answer_on_field(llhttp_t *parser, const char *at, size_t length)
{
    struct probe_answer *answer = parser->data;
    const size_t room = PROBE_FIELD_BYTES_MAX - answer->field.size;

    buffer_append(&answer->field, at, length < room ? length : room);
    return 0;
}

static int probe_answer_on_field_complete(llhttp_t *parser)
{
    struct probe_answer *answer = parser->data;

    answer->in_location =
        answer->location.size == 0 &&
        slice_equal_nocase(buffer_slice(&answer->field), SLICE_LITERAL("location"));
    buffer_clear(&answer->field);
    return 0;
}

static int probe_answer_on_value(llhttp_t *parser, const char *at, size_t length)
{
    struct probe_answer *answer = parser->data;

    if (!answer->in_location) {
        return 0;
    }
    if (answer->location.size + length <= PROBE_LOCATION_BYTES_MAX) {
        buffer_append(&answer->location, at, length);
    } else {
        buffer_clear(&answer->location); /* Half of an address leads elsewhere. */
        answer->in_location = false;
    }
    return 0;
}

static int probe_answer_on_headers_complete(llhttp_t *parser)
{
    struct probe_answer *answer = parser->data;

    answer->head_done = parser->status_code >= 200;
    return answer->head_only ? 1 : 0; /* 1 tells llhttp that no body follows. */
}

static int probe_answer_on_body(llhttp_t *parser, const char *at, size_t length)
{
    struct probe_answer *answer = parser->data;
    struct buffer *body = &answer->body;

    buffer_append(body, at, length);
    if (body->size > 2 * answer->body_bytes_max) {
        const struct slice kept = probe_answer_body(answer);

        memmove(body->data, kept.data, kept.size);
        body->size = kept.size;
    }
    return 0;
}

static int probe_answer_on_complete(llhttp_t *parser)
{
    struct probe_answer *answer = parser->data;

    if (parser->status_code < 200) {
        buffer_clear(&answer->reason); /* An interim answer; the real one follows. */
        buffer_clear(&answer->location);
        return 0;
    }
    answer->complete = true;
    return HPE_PAUSED;
}

void probe_answer_begin(struct probe_answer *answer, bool head_only, uint64_t body_bytes_max)
{
    assert(body_bytes_max > 0);
    assert(body_bytes_max <= SIZE_MAX / 2);
    answer->received_bytes = 0;
    answer->body_bytes_max = body_bytes_max;
    answer->in_location = false;
    answer->head_only = head_only;
    answer->head_done = false;
    answer->complete = false;
    buffer_clear(&answer->reason);
    buffer_clear(&answer->body);
    buffer_clear(&answer->field);
    buffer_clear(&answer->location);

    llhttp_settings_init(&answer->settings);
    answer->settings.on_status = probe_answer_on_status;
    answer->settings.on_header_field = probe_answer_on_field;
    answer->settings.on_header_field_complete = probe_answer_on_field_complete;
    answer->settings.on_header_value = probe_answer_on_value;
    answer->settings.on_headers_complete = probe_answer_on_headers_complete;
    answer->settings.on_body = probe_answer_on_body;
    answer->settings.on_message_complete = probe_answer_on_complete;
    llhttp_init(&answer->parser, HTTP_RESPONSE, &answer->settings);
    answer->parser.data = answer;
}

void probe_answer_deinit(struct probe_answer *answer)
{
    buffer_deinit(&answer->reason);
    buffer_deinit(&answer->body);
    buffer_deinit(&answer->field);
    buffer_deinit(&answer->location);
}

bool probe_answer_feed(struct probe_answer *answer, struct slice bytes, const char **problem)
{
    assert(answer->parser.data == answer);
    const llhttp_errno_t rc = llhttp_execute(&answer->parser, bytes.data, bytes.size);

    answer->received_bytes += bytes.size;
    const bool enough = answer->received_bytes > PROBE_RESPONSE_BYTES_MAX;
    if (answer->complete || (answer->head_done && (rc != HPE_OK || enough))) {
        return true;
    }
    if (rc != HPE_OK) {
        *problem = "net/http: HTTP/1.x transport connection broken: malformed HTTP response";
    } else if (enough) {
        *problem = "net/http: server response headers exceeded 1048576 bytes; aborted";
    }
    return rc != HPE_OK || enough;
}

bool probe_answer_has_status(const struct probe_answer *answer)
{
    return answer->head_done;
}

unsigned probe_answer_status(const struct probe_answer *answer)
{
    assert(answer->head_done);
    return answer->parser.status_code;
}

struct slice probe_answer_reason(const struct probe_answer *answer)
{
    return buffer_slice(&answer->reason);
}

struct slice probe_answer_location(const struct probe_answer *answer)
{
    return buffer_slice(&answer->location);
}

struct slice probe_answer_body(const struct probe_answer *answer)
{
    const struct slice body = buffer_slice(&answer->body);
    const size_t kept = body.size < answer->body_bytes_max ? body.size : answer->body_bytes_max;

    return slice_from(body.data + (body.size - kept), kept);
}
