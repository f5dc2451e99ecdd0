/* Whatever stands in a configuration file is taken or refused; nothing crashes, leaks or trips an
 * assertion. The same bytes are read as a duration, too. */

#include <stdint.h>
#include <stdlib.h>

#include "server/config_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct slice text = {(const char *)data, size};
    struct config_settings settings;
    struct errmsg err;
    int64_t ns;

    if (duration_parse(text, &ns, &err)) {
        char printed[64];

        duration_format(ns, printed, sizeof(printed));
    }
    if (config_settings_init(&settings) != 0) {
        abort();
    }
    settings.quiet = true;
    if (config_settings_read(&settings, "fuzz.json", text, &err) == 0) {
        struct config *config = calloc(1, sizeof(*config));

        if (config == NULL) {
            abort();
        }
        (void)config_build(&settings, true, config, &err); /* either outcome is fine */
        config_free(config);
    }
    config_settings_deinit(&settings);
    return 0;
}
