/* An event as another server sends it, of arbitrary bytes: it is refused, or taken; what was taken
 * is told again as the same bytes, and the clock it carries does not stop events fired here. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 64 * 1024 };

static void fuzz_on_event(void *context)
{
    ++*(unsigned *)context;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned noted = 0;
    const struct events_handlers handlers = {.context = &noted, .on_event = fuzz_on_event};
    struct event own = {.name = slice_from_text("own")};
    struct buffer again = {0};
    struct event event;

    if (size > FUZZ_BYTES_MAX) {
        return 0;
    }
    struct events *events = events_new(&handlers);
    assert(events != NULL);
    const struct slice bytes = slice_from((const char *)data, size);
    const bool decoded = events_decode(bytes, &event);

    events_receive(events, bytes);
    assert(events_count(events) == (decoded ? 1 : 0));
    if (decoded) {
        events_encode(&again, &event);
        assert(slice_equal(buffer_slice(&again), bytes));
        assert(events_at(events, 0)->ltime == event.ltime);
        assert(slice_equal(events_at(events, 0)->name, event.name));
    }
    const uint64_t before = events_count(events);
    const bool fired = events_fire(events, &own, 0);
    assert(fired && events_count(events) == before + 1 && noted == before + 1);
    events_free(events);
    buffer_deinit(&again);
    return 0;
}
