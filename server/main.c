#include <fcntl.h>
#include <unistd.h>

#include "server/cli/cli.h"

/* A parent may have closed some of them. Then the next file that is opened would be it, and what is
 * printed or logged would go into the log's segments, a snapshot or a socket. */
static void main_open_standard_streams(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR); /* A system without it has worse troubles. */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO) {
        (void)close(fd);
    }
}

int main(int argc, char **argv)
{
    main_open_standard_streams();
    return cli_run(argc, argv);
}
