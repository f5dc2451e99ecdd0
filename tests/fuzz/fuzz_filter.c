/* Filter expressions of any bytes: the first says what is filtered. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *object;
    struct errmsg err = {""};

    if (object == NULL) {
        object = json_loads("{\"Node\":\"n\",\"Meta\":{\"a\":\"b\"},\"Tags\":[\"x\"],\"Port\":1,"
                            "\"Checks\":[{\"Status\":\"passing\",\"Output\":\"aaa\\naa\u00e9b\"}],"
                            "\"Status\":\"passing\",\"ServicePort\":1,\"ServiceTags\":null}",
                            0, NULL);
    }
    if (size == 0) {
        return 0;
    }
    /* A copy of its own size: a read past its end is seen. */
    char *copy = malloc(size);
    assert(copy != NULL);
    memcpy(copy, data, size);
    struct filter *filter = filter_new((enum filter_kind)(data[0] % (FILTER_HEALTH + 1)),
                                       slice_from(copy + 1, size - 1), &err);
    if (filter == NULL) {
        assert(err.text[0] != '\0');
    } else {
        (void)filter_matches(filter, object);
    }
    filter_free(filter);
    free(copy);
    return 0;
}
