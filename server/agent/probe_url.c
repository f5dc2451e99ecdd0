#include "server/agent/probe_url.h"

#include <stdint.h>
#include <string.h>

bool probe_port_is_valid(struct slice port)
{
    unsigned long value = 0;

    if (port.size == 0 || port.size > PROBE_PORT_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < port.size; i++) {
        if (port.data[i] < '0' || port.data[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned long)(port.data[i] - '0');
    }
    return value <= UINT16_MAX;
}

bool probe_authority_split(struct slice text, struct slice *host, struct slice *port)
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

/* Bytes that would end a line of the request, or that no URL has. */
static bool probe_url_has_control(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if ((unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

bool probe_url_is_secure(const struct probe_url *url)
{
    return slice_equal_nocase(url->scheme, SLICE_LITERAL("https"));
}

bool probe_url_parse(struct slice text, struct probe_url *out, struct buffer *problem)
{
    const char *const end = text.data + text.size;

    if (probe_url_has_control(text)) {
        buffer_append_text(problem, "net/url: invalid control character in URL");
        return false;
    }
    const char *mark = memmem(text.data, text.size, "://", 3);
    out->scheme = mark == NULL ? SLICE_EMPTY : slice_from(text.data, (size_t)(mark - text.data));
    if (mark == NULL ||
        (!slice_equal_nocase(out->scheme, SLICE_LITERAL("http")) && !probe_url_is_secure(out))) {
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
    const size_t left = (size_t)(end - stop);
    const char *fragment = left > 0 ? memchr(stop, '#', left) : NULL;
    out->path = slice_from(stop, (size_t)((fragment == NULL ? end : fragment) - stop));
    if (out->authority.size == 0 || memchr(at, '@', out->authority.size) != NULL ||
        memchr(at, ' ', out->authority.size) != NULL ||
        !probe_authority_split(out->authority, &out->host, &out->port) || out->host.size == 0 ||
        (out->port.size > 0 && !probe_port_is_valid(out->port))) {
        buffer_append_text(problem, "http: no usable host in request URL");
        return false;
    }
    return true;
}

/* Whether it begins with a scheme: then nothing of the base is needed. */
static bool probe_location_is_absolute(struct slice location)
{
    for (size_t i = 0; i < location.size; i++) {
        const char c = slice_lower(location.data[i]);

        if (c == ':') {
            return i > 0;
        }
        if (!((c >= 'a' && c <= 'z') || (i > 0 && (c >= '0' && c <= '9')) || c == '+' || c == '-' ||
              c == '.')) {
            return false;
        }
    }
    return false;
}

bool probe_location_names_host(struct slice location)
{
    return probe_location_is_absolute(location) || slice_starts_with(location, SLICE_LITERAL("//"));
}

struct slice probe_url_port(const struct probe_url *url)
{
    if (url->port.size > 0) {
        return url->port;
    }
    return probe_url_is_secure(url) ? SLICE_LITERAL("443") : SLICE_LITERAL("80");
}

bool probe_url_is_below(const struct probe_url *url, const struct probe_url *base)
{
    const struct slice host = url->host;
    const size_t more = host.size - base->host.size; /* If it is longer. */

    if (!slice_equal(probe_url_port(url), probe_url_port(base)) ||
        (probe_url_is_secure(base) && !probe_url_is_secure(url))) {
        return false;
    }
    if (host.size <= base->host.size) {
        return slice_equal_nocase(host, base->host);
    }
    return host.data[more - 1] == '.' &&
           slice_equal_nocase(slice_from(host.data + more, base->host.size), base->host);
}

/* The base's path that a relative one stands behind: with a query alone all of it, otherwise up to
 * its last slash. */
static struct slice probe_url_folder(const struct probe_url *base, struct slice location)
{
    const char *query = memchr(base->path.data, '?', base->path.size);
    size_t size = query == NULL ? base->path.size : (size_t)(query - base->path.data);

    while (location.data[0] != '?' && size > 0 && base->path.data[size - 1] != '/') {
        size--;
    }
    return slice_from(base->path.data, size);
}

void probe_url_resolve(const struct probe_url *base, struct slice location, struct buffer *out)
{
    if (location.size == 0 || probe_location_is_absolute(location)) {
        buffer_append_slice(out, location);
        return;
    }
    buffer_append_slice(out, base->scheme);
    buffer_append_char(out, ':');
    if (!slice_starts_with(location, SLICE_LITERAL("//"))) {
        buffer_append_text(out, "//");
        buffer_append_slice(out, base->authority);
        if (location.data[0] != '/') {
            const struct slice folder = probe_url_folder(base, location);

            buffer_append_slice(out, folder.size > 0 ? folder : SLICE_LITERAL("/"));
        }
    }
    buffer_append_slice(out, location);
}
