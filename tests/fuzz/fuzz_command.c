/* Commands as they come out of the log: any bytes at all. The input is a row of commands, each
 * behind its u16 size, applied in one transaction that is then aborted. Two things must hold: what
 * command_valid announces is what command_apply does (what is not valid stops a server, nothing
 * else does), and a command that is refused or unknown changes nothing. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/command.h"

enum { FUZZ_STORE_BYTES = 64 << 20, FUZZ_COMMANDS_MAX = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One store for all inputs: transactions are aborted, it stays empty. */
static struct store *fuzz_store(void)
{
    static struct store *store;
    static char dir[] = "/tmp/proconsul-fuzz-command-XXXXXX";
    struct errmsg err = {""};
    bool wiped;

    if (store == NULL) {
        if (mkdtemp(dir) == NULL) {
            abort();
        }
        const struct store_options options = {.dir = dir, .bytes_max = FUZZ_STORE_BYTES};
        if (store_open(&options, &store, &wiped, &err) != 0) {
            (void)fprintf(stderr, "%s\n", err.text);
            abort();
        }
    }
    return store;
}

static uint64_t fuzz_checksum(struct store_txn *txn)
{
    uint64_t checksum = 0;
    const int rc = store_checksum(txn, &checksum);

    assert(rc == 0);
    return checksum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_txn txn = {0};
    struct command_result result;
    struct reader reader = reader_from(slice_from((const char *)data, size));
    int rc = store_write_begin(fuzz_store(), &txn);

    assert(rc == 0);
    for (uint64_t index = 1; index <= FUZZ_COMMANDS_MAX && !reader_done(&reader); index++) {
        const struct slice bytes = reader_bytes(&reader, reader_u16(&reader));
        if (reader.failed) {
            break;
        }
        /* A copy of its own size: a read past its end is seen. */
        char *copy = malloc(bytes.size + 1);
        assert(copy != NULL);
        memcpy(copy + 1, bytes.data, bytes.size);
        const struct slice command = slice_from(copy + 1, bytes.size);
        const bool valid = command_valid(command);
        const uint64_t before = fuzz_checksum(&txn);

        rc = command_apply(&txn, 1, index, command, NULL, &result);
        assert(rc == (valid ? 0 : COMMAND_EUNKNOWN));
        if (!valid || result.status == COMMAND_REFUSED) {
            assert(fuzz_checksum(&txn) == before);
            assert(result.error.text[0] != '\0');
        }
        free(copy);
    }
    store_write_abort(&txn);
    return 0;
}
