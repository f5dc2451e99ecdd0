/* The bytes of a configuration: what is written is read, anything else is refused. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raft/raft.h"

static struct raft_configuration sample(size_t count, uint8_t info_size)
{
    struct raft_configuration configuration;

    memset(&configuration, 0, sizeof(configuration));
    configuration.count = count;
    for (size_t i = 0; i < count; i++) {
        struct raft_server *server = &configuration.servers[i];
        server->id = 1000 + i * UINT64_C(0x0102030405060708);
        server->voter = i % 2 == 0;
        server->info_size = info_size;
        memset(server->info, 'a' + (int)i, info_size);
    }
    return configuration;
}

static void test_what_is_written_is_read(void **state)
{
    static const uint8_t info_sizes[] = {0, 1, RAFT_SERVER_INFO_BYTES_MAX};

    (void)state;
    for (size_t count = 1; count <= RAFT_SERVERS_MAX; count++) {
        for (size_t i = 0; i < 3; i++) {
            const struct raft_configuration configuration = sample(count, info_sizes[i]);
            struct raft_configuration decoded;
            uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
            const size_t size = raft_configuration_encode(&configuration, bytes);
            assert_int_equal(raft_configuration_decode(bytes, size, &decoded), RAFT_OK);
            assert_memory_equal(&decoded, &configuration, sizeof(decoded));
        }
    }
    assert_int_equal(RAFT_CONFIGURATION_BYTES_MAX,
                     8 + RAFT_SERVERS_MAX * (16 + RAFT_SERVER_INFO_BYTES_MAX));
}

/* On the heap at its exact size, so that a sanitizer sees a read beyond the end. */
static int decode_copy(const uint8_t *bytes, size_t size, struct raft_configuration *out)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    const int rc = raft_configuration_decode(copy, size, out);
    free(copy);
    return rc;
}

static void test_every_cut_is_refused(void **state)
{
    const struct raft_configuration configuration = sample(3, 5);
    struct raft_configuration decoded;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX + 1] = {0};
    const size_t size = raft_configuration_encode(&configuration, bytes);

    (void)state;
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(decode_copy(bytes, cut, &decoded), RAFT_EINVAL);
    }
    assert_int_equal(decode_copy(bytes, size + 1, &decoded), RAFT_EINVAL);
    assert_int_equal(raft_configuration_decode(NULL, 0, &decoded), RAFT_EINVAL);
}

/* Equal configurations have equal bytes, so whatever is accepted is written the same way again. */
static void test_every_flipped_bit_is_refused_or_has_a_meaning(void **state)
{
    const struct raft_configuration configuration = sample(3, 5);
    struct raft_configuration decoded;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    uint8_t again[RAFT_CONFIGURATION_BYTES_MAX];
    const size_t size = raft_configuration_encode(&configuration, bytes);

    (void)state;
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        if (decode_copy(bytes, size, &decoded) == RAFT_OK) {
            assert_int_equal(raft_configuration_encode(&decoded, again), size);
            assert_memory_equal(again, bytes, size);
        }
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
}

static void test_impossible_sets_are_refused(void **state)
{
    static const struct {
        const char *name;
        size_t offset;
        uint8_t value;
    } cases[] = {
        {"version", 0, 2}, {"no server", 1, 0},         {"too many", 1, RAFT_SERVERS_MAX + 1},
        {"padding", 7, 1}, {"voter is a truth", 16, 2}, {"info too long", 17, 241},
    };
    struct raft_configuration configuration = sample(2, 0);
    struct raft_configuration decoded;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t size = raft_configuration_encode(&configuration, bytes);
        bytes[cases[i].offset] = cases[i].value;
        if (decode_copy(bytes, size, &decoded) != RAFT_EINVAL) {
            fail_msg("%s", cases[i].name);
        }
    }
    const size_t size = raft_configuration_encode(&configuration, bytes);
    uint8_t swapped[8 + 2 * 16];
    assert_int_equal(size, sizeof(swapped));
    memcpy(swapped, bytes, 8);
    memcpy(swapped + 8, bytes + 24, 16);
    memcpy(swapped + 24, bytes + 8, 16);
    assert_int_equal(decode_copy(swapped, size, &decoded), RAFT_EINVAL);
    memcpy(swapped + 24, bytes + 24, 16);
    assert_int_equal(decode_copy(swapped, size, &decoded), RAFT_EINVAL);
    bytes[16] = 0; /* The only voter loses its vote. */
    assert_int_equal(decode_copy(bytes, size, &decoded), RAFT_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_every_flipped_bit_is_refused_or_has_a_meaning),
        cmocka_unit_test(test_impossible_sets_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
