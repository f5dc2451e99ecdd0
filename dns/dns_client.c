/* Clients whose answers come later. */

#include <assert.h>
#include <string.h>

#include "dns/dns_server_internal.h"

struct in6_addr dns_client_address(const struct sockaddr_storage *peer)
{
    struct in6_addr address = {0};

    if (peer->ss_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, peer, sizeof(v6));
        return v6.sin6_addr;
    }
    struct sockaddr_in v4;

    memcpy(&v4, peer, sizeof(v4));
    address.s6_addr[10] = address.s6_addr[11] = 0xff;
    memcpy(address.s6_addr + 12, &v4.sin_addr, 4);
    return address;
}

uint32_t dns_client_hash(const struct dns_asker *asker)
{
    const struct in6_addr address =
        asker->conn != NULL ? asker->conn->client : dns_client_address(asker->header->msg_name);

    return dns_hash(&address, sizeof(address));
}

void dns_client_keep(struct dns_client *client, const struct dns_asker *asker)
{
    client->conn = asker->conn;
    client->control_size = 0;
    if (asker->conn != NULL) {
        asker->conn->waiting_count++;
        return;
    }
    client->udp_fd = asker->udp_fd;
    client->peer_size = asker->header->msg_namelen;
    assert(client->peer_size <= sizeof(client->peer));
    memcpy(&client->peer, asker->header->msg_name, client->peer_size);
    client->control_size = asker->header->msg_controllen;
    assert(client->control_size <= sizeof(client->control));
    memcpy(client->control, asker->header->msg_control, client->control_size);
}

void dns_client_drop(struct dns_client *client)
{
    if (client->conn != NULL) {
        assert(client->conn->waiting_count > 0);
        client->conn->waiting_count--;
        client->conn = NULL;
    }
}

struct msghdr dns_client_header(struct dns_client *client)
{
    return (struct msghdr){.msg_name = &client->peer,
                           .msg_namelen = client->peer_size,
                           .msg_control = client->control,
                           .msg_controllen = client->control_size};
}

void dns_client_send(struct dns_worker *worker, struct dns_client *client, size_t size)
{
    uint8_t *framed = worker->tcp_out;
    struct dns_conn *conn = client->conn;

    dns_worker_count_answer(worker, framed + DNS_FRAME_BYTES);
    if (conn != NULL) {
        framed[0] = (uint8_t)(size >> 8);
        framed[1] = (uint8_t)size;
        dns_client_drop(client);
        dns_tcp_deliver(worker, conn, framed, DNS_FRAME_BYTES + size);
        return;
    }
    struct iovec vector = {framed + DNS_FRAME_BYTES, size};
    struct msghdr query = dns_client_header(client);
    struct msghdr answer = {.msg_name = &client->peer,
                            .msg_namelen = client->peer_size,
                            .msg_iov = &vector,
                            .msg_iovlen = 1};

    dns_udp_reuse_control(&answer, &query);
    /* A datagram that cannot be sent is dropped, as the network may do, too. */
    (void)sendmsg(client->udp_fd, &answer, MSG_DONTWAIT);
}
