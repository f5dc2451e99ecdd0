#include "server/peers/hello.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

bool hello_is_ip(const char *text)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    return uv_ip4_addr(text, 0, &v4) == 0 || uv_ip6_addr(text, 0, &v6) == 0;
}

void hello_put(struct buffer *out, const struct link_identity *self)
{
    buffer_put_u16(out, LINK_VERSION);
    buffer_append(out, self->id.bytes, UUID_BYTES);
    buffer_put_string(out, slice_from_text(self->name));
    buffer_put_string(out, slice_from_text(self->datacenter));
    buffer_put_string(out, slice_from_text(self->address));
    buffer_put_u16(out, self->serf_port);
    buffer_put_u16(out, self->server_port);
    buffer_append(out, self->cluster_id.bytes, UUID_BYTES);
}

bool hello_get(struct slice payload, struct link_identity *out)
{
    struct reader reader = reader_from(payload);
    const uint16_t version = reader_u16(&reader);
    const struct slice id = reader_bytes(&reader, UUID_BYTES);
    const struct slice name = reader_string(&reader);
    const struct slice datacenter = reader_string(&reader);
    const struct slice address = reader_string(&reader);

    memset(out, 0, sizeof(*out));
    out->serf_port = reader_u16(&reader);
    out->server_port = reader_u16(&reader);
    if (reader.failed || version == 0) {
        return false;
    }
    memcpy(out->id.bytes, id.data, UUID_BYTES);
    const struct slice cluster_id = reader_bytes(&reader, UUID_BYTES);

    out->has_cluster_id = cluster_id.size == UUID_BYTES; /* Older versions end before it. */
    if (out->has_cluster_id) {
        memcpy(out->cluster_id.bytes, cluster_id.data, UUID_BYTES);
    }
    return !uuid_is_zero(&out->id) && slice_copy_text(name, out->name, sizeof(out->name)) &&
           slice_copy_text(datacenter, out->datacenter, sizeof(out->datacenter)) &&
           slice_copy_text(address, out->address, sizeof(out->address)) &&
           hello_is_ip(out->address);
}

bool hello_fits(const struct link_identity *self, const struct link_identity *peer, char *reason,
                size_t reason_bytes)
{
    char own_id[UUID_TEXT_BYTES + 1];
    char peer_id[UUID_TEXT_BYTES + 1];

    if (strcmp(peer->datacenter, self->datacenter) != 0) {
        (void)snprintf(reason, reason_bytes, "server %s is of datacenter '%s', this one of '%s'",
                       peer->name, peer->datacenter, self->datacenter);
        return false;
    }
    if (uuid_is_zero(&self->cluster_id) || uuid_is_zero(&peer->cluster_id) ||
        uuid_equal(&self->cluster_id, &peer->cluster_id)) {
        return true;
    }
    uuid_format(&self->cluster_id, own_id);
    uuid_format(&peer->cluster_id, peer_id);
    (void)snprintf(reason, reason_bytes,
                   "server %s is of cluster %s, server %s is of cluster %s: to join the other's, "
                   "stop the server that is to, empty its data_dir and start it again",
                   peer->name, peer_id, self->name, own_id);
    return false;
}
