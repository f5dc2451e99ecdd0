/* Sends one question over and over to a DNS server at a fixed rate, whatever comes back:
 *   dns_flood ADDRESS PORT RATE SECONDS NAME
 * Prints how many were sent per second. Built and run by tests/bench/dns_flood. */

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, SOCKETS = 8, QUERY_BYTES_MAX = 300 };

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A question of type A; `name` is trusted. */
static size_t make_query(const char *name, uint8_t *out)
{
    size_t size = 12;

    memcpy(out, "\x12\x34\1\0\0\1\0\0\0\0\0\0", 12);
    while (*name != '\0') {
        const size_t length = strcspn(name, ".");

        out[size++] = (uint8_t)length;
        memcpy(out + size, name, length);
        size += length;
        name += length + (name[length] == '.');
    }
    memcpy(out + size, "\0\0\1\0\1", 5);
    return size + 5;
}

int main(int argc, char **argv)
{
    uint8_t query[QUERY_BYTES_MAX];
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct mmsghdr messages[BATCH];
    int fds[SOCKETS];
    double sent = 0;

    if (argc != 6 || strlen(argv[5]) > 250 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        return 2;
    }
    const double rate = atof(argv[3]);
    const double seconds = atof(argv[4]);
    struct iovec vector = {query, make_query(argv[5], query)};

    address.sin_port = htons((uint16_t)atoi(argv[2]));
    memset(messages, 0, sizeof(messages));
    for (size_t i = 0; i < BATCH; i++) {
        messages[i].msg_hdr.msg_iov = &vector;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (size_t i = 0; i < SOCKETS; i++) {
        const int small = 1; /* What comes back is dropped. */

        fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&address, sizeof(address)) != 0) {
            perror("connect");
            return 1;
        }
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
    const double began_s = now_s();

    for (double at_s = 0; at_s < seconds; at_s = now_s() - began_s) {
        if (sent > at_s * rate) {
            const struct timespec pause = {.tv_nsec = 200000};

            nanosleep(&pause, NULL);
            continue;
        }
        const int count = sendmmsg(fds[(size_t)(sent / BATCH) % SOCKETS], messages, BATCH, 0);

        sent += count > 0 ? count : BATCH; /* What the kernel refuses was sent in vain. */
    }
    printf("%.0f\n", sent / (now_s() - began_s));
    return 0;
}
