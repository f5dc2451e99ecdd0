/* UDP: datagrams are taken and answered in batches, in memory laid out once. */

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "dns/dns_server_internal.h"

void dns_udp_prepare(struct dns_udp_batch *batch)
{
    for (size_t i = 0; i < DNS_BATCH_MAX; i++) {
        batch->in_vectors[i] = (struct iovec){batch->in[i], sizeof(batch->in[i])};
        batch->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &batch->peers[i],
            .msg_iov = &batch->in_vectors[i],
            .msg_iovlen = 1,
            .msg_control = batch->controls[i],
        };
        batch->answers[i].msg_hdr.msg_iov = &batch->out_vectors[i];
        batch->answers[i].msg_hdr.msg_iovlen = 1;
    }
}

/* The answer leaves from the address that the question came to; the interface is the kernel's
 * choice, since the way back may be another one. */
void dns_udp_reuse_control(struct msghdr *answer, struct msghdr *query)
{
    answer->msg_control = NULL;
    answer->msg_controllen = 0;
    if (query->msg_controllen == 0) {
        return;
    }
    struct cmsghdr *control = CMSG_FIRSTHDR(query);

    if (control == NULL) {
        return;
    }
    if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
        struct in_pktinfo info;

        memcpy(&info, CMSG_DATA(control), sizeof(info));
        info.ipi_ifindex = 0;
        memcpy(CMSG_DATA(control), &info, sizeof(info));
    } else if (control->cmsg_level != IPPROTO_IPV6 || control->cmsg_type != IPV6_PKTINFO) {
        return;
    }
    answer->msg_control = control;
    answer->msg_controllen = query->msg_controllen;
}

/* Sends what was answered. A datagram that cannot be sent is dropped, as the network may do, too.
 */
static void send_batch(struct dns_udp_batch *batch, int fd, unsigned count)
{
    unsigned sent = 0;

    while (sent < count) { /* Each turn sends or drops one at least. */
        const int rc = sendmmsg(fd, batch->answers + sent, count - sent, MSG_DONTWAIT);

        if (rc > 0) {
            sent += (unsigned)rc;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
            return;
        } else if (errno != EINTR) {
            sent++;
        }
    }
}

/* One batch a turn: then TCP and the stop signal have theirs. */
void dns_udp_serve(struct dns_worker *worker, int fd)
{
    struct dns_udp_batch *batch = worker->batch;
    unsigned count = 0;

    for (size_t i = 0; i < DNS_BATCH_MAX; i++) {
        batch->messages[i].msg_hdr.msg_namelen = sizeof(batch->peers[i]);
        batch->messages[i].msg_hdr.msg_controllen = sizeof(batch->controls[i]);
    }
    const int received = recvmmsg(fd, batch->messages, DNS_BATCH_MAX, MSG_DONTWAIT, NULL);

    if (received <= 0) { /* Nothing, or an error of an earlier datagram; neither matters. */
        return;
    }
    dns_worker_renew(worker);
    for (int i = 0; i < received; i++) {
        struct msghdr *query = &batch->messages[i].msg_hdr;
        uint8_t *out = batch->out[count];
        const struct dns_asker asker = {.udp_fd = fd, .header = query};
        const size_t size =
            dns_worker_answer(worker, &asker, batch->in[i], batch->messages[i].msg_len, out,
                              sizeof(batch->out[count]));

        if (size == 0) {
            continue;
        }
        dns_worker_count_answer(worker, out);
        struct msghdr *answer = &batch->answers[count].msg_hdr;

        batch->out_vectors[count] = (struct iovec){out, size};
        answer->msg_name = query->msg_name;
        answer->msg_namelen = query->msg_namelen;
        dns_udp_reuse_control(answer, query);
        count++;
    }
    send_batch(batch, fd, count);
}
