/* What arrives on the server port: the protocol byte, the hello, frames. The bytes are fed to an
 * incoming link without a socket; whatever they are, the link goes up by a valid hello, or ends. */

#include <stdlib.h>

#include "server/peers/link.c" /* its parser is private */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct link_identity self = {
    .id = {{1}}, .name = "self", .datacenter = "dc1", .cluster_id = {{9}}};

static void on_up(void *host, struct link *link, const struct link_identity *peer)
{
    (void)host;
    (void)link;
    assert(uuid_is_zero(&peer->cluster_id) || uuid_equal(&peer->cluster_id, &self.cluster_id));
    assert(!uuid_is_zero(&peer->id));
    assert(strcmp(peer->datacenter, "dc1") == 0);
}

static void on_down(void *host, struct link *link, const char *reason)
{
    (void)host;
    (void)link;
    (void)reason;
}

static void on_frame(void *host, struct link *link, uint8_t type, struct slice payload)
{
    (void)host;
    const struct uuid *cluster_id = &link_peer(link)->cluster_id;

    assert(link_is_up(link));
    assert(uuid_is_zero(cluster_id) || uuid_equal(cluster_id, &self.cluster_id));
    assert(type >= LINK_TYPE_FIRST);
    assert(payload.size <= LINK_FRAME_BYTES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct link_handlers handlers = {
        .on_up = on_up, .on_down = on_down, .on_frame = on_frame};
    struct link_listener listener = {.self = &self, .handlers = &handlers};
    uv_loop_t loop;
    struct link *link;
    char *room;

    if (uv_loop_init(&loop) != 0) {
        abort();
    }
    link = link_new(&loop, &self, &handlers);
    link->listener = &listener;
    listener.links = link;
    listener.link_count = 1;
    link->state = LINK_GREETING;
    link->writing = true; /* Nothing is written: there is no socket. */
    room = buffer_reserve(&link->in, size + 1);
    memcpy(room, data, size);
    link->in.size = size;
    link_parse(link);
    link_free(link); /* No effect if the bytes have ended it. */
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
    return 0;
}
