/* /v1/agent/host and /v1/agent/version: the machine and the program, for whoever collects them from
 * afar. */

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/http_agent.h"
#include "server/server.h"

enum { HOST_LINE_BYTES_MAX = 512, HOST_LINES_MAX = 256 };

/* "MemTotal:  123 kB" as "total": 123 * 1024, for the lines that Consul shows under these names. */
static void host_put_memory(struct buffer *out)
{
    static const struct {
        const char *line, *name;
    } names[] = {
        {"MemTotal", "total"},        {"MemAvailable", "available"},
        {"MemFree", "free"},          {"Active", "active"},
        {"Inactive", "inactive"},     {"Buffers", "buffers"},
        {"Cached", "cached"},         {"Dirty", "dirty"},
        {"Shmem", "shared"},          {"Slab", "slab"},
        {"Mapped", "mapped"},         {"SwapTotal", "swaptotal"},
        {"SwapFree", "swapfree"},     {"Writeback", "writeback"},
        {"PageTables", "pagetables"}, {"SwapCached", "swapcached"},
    };
    FILE *file = fopen("/proc/meminfo", "re");
    char line[HOST_LINE_BYTES_MAX], key[64];
    uint64_t kib, total = 0, free_kib = 0, buffers = 0, cached = 0;

    buffer_append_text(out, "\"Memory\":{");
    for (int i = 0; file != NULL && i < HOST_LINES_MAX && fgets(line, sizeof(line), file) != NULL;
         i++) {
        if (sscanf(line, "%63[^:]: %" SCNu64, key, &kib) != 2) {
            continue;
        }
        total = strcmp(key, "MemTotal") == 0 ? kib : total;
        free_kib = strcmp(key, "MemFree") == 0 ? kib : free_kib;
        buffers = strcmp(key, "Buffers") == 0 ? kib : buffers;
        cached = strcmp(key, "Cached") == 0 ? kib : cached;
        for (size_t j = 0; j < sizeof(names) / sizeof(names[0]); j++) {
            if (strcmp(key, names[j].line) == 0) {
                buffer_printf(out, "\"%s\":%" PRIu64 ",", names[j].name, kib * 1024);
            }
        }
    }
    if (file != NULL) {
        (void)fclose(file); /* only read from */
    }
    const uint64_t idle = free_kib + buffers + cached;
    const uint64_t used = total > idle ? total - idle : 0;

    buffer_printf(out, "\"used\":%" PRIu64 ",\"usedPercent\":%.6g}", used * 1024,
                  total == 0 ? 0 : 100 * (double)used / (double)total);
}

/* "model name	: text" of /proc/cpuinfo; what is a number in Consul's answer is one here. */
static void host_put_cpu_line(struct buffer *out, const char *key, const char *value)
{
    static const struct {
        const char *line, *name;
        bool number;
    } names[] = {
        {"vendor_id", "vendorId", false},
        {"cpu family", "family", false},
        {"model", "model", false},
        {"stepping", "stepping", true},
        {"physical id", "physicalId", false},
        {"core id", "coreId", false},
        {"model name", "modelName", false},
        {"cpu MHz", "mhz", true},
        {"cache size", "cacheSize", true},
        {"microcode", "microcode", false},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(key, names[i].line) != 0) {
            continue;
        }
        buffer_printf(out, ",\"%s\":", names[i].name);
        if (names[i].number) {
            buffer_printf(out, "%.9g", strtod(value, NULL));
        } else {
            json_put_string(out, slice_from_text(value));
        }
    }
}

static void host_put_cpus(struct buffer *out)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[8 * HOST_LINE_BYTES_MAX], key[64], value[256];
    int cpu;
    bool open = false;

    buffer_append_text(out, ",\"CPU\":[");
    for (int i = 0; file != NULL && i < 64 * HOST_LINES_MAX && fgets(line, sizeof(line), file);
         i++) {
        if (sscanf(line, "processor : %d", &cpu) == 1) {
            buffer_printf(out, "%s{\"cpu\":%d,\"cores\":1", open ? "}," : "", cpu);
            open = true;
        } else if (open && sscanf(line, "%63[^\t:]%*[\t ]: %255[^\n]", key, value) == 2) {
            host_put_cpu_line(out, key, value);
        }
    }
    buffer_append_text(out, open ? "}]" : "]");
    if (file != NULL) {
        (void)fclose(file); /* only read from */
    }
}

/* A value of /etc/os-release, without its quotes. */
static void host_read_release(const char *name, char *out, size_t out_bytes)
{
    FILE *file = fopen("/etc/os-release", "re");
    char line[HOST_LINE_BYTES_MAX];

    out[0] = '\0';
    for (int i = 0; file != NULL && i < HOST_LINES_MAX && fgets(line, sizeof(line), file) != NULL;
         i++) {
        const size_t size = strlen(name);

        if (strncmp(line, name, size) == 0 && line[size] == '=') {
            const char *value = line + size + 1 + (line[size + 1] == '"' ? 1 : 0);

            (void)snprintf(out, out_bytes, "%.*s", (int)strcspn(value, "\"\n"), value);
        }
    }
    if (file != NULL) {
        (void)fclose(file); /* only read from */
    }
}

static void host_put_text(struct buffer *out, const char *name, const char *value)
{
    catalog_json_key(out, name);
    json_put_string(out, slice_from_text(value));
}

static void host_put_system(struct buffer *out, time_t now_s)
{
    struct utsname name;
    char platform[64], version[64];
    double uptime_s = 0;

    if (uname(&name) != 0) {
        memset(&name, 0, sizeof(name));
    }
    (void)uv_uptime(&uptime_s); /* stays 0 */
    host_read_release("ID", platform, sizeof(platform));
    host_read_release("VERSION_ID", version, sizeof(version));
    buffer_printf(out, ",\"Host\":{\"uptime\":%" PRIu64 ",\"bootTime\":%" PRId64,
                  (uint64_t)uptime_s, (int64_t)now_s - (int64_t)uptime_s);
    host_put_text(out, "hostname", name.nodename);
    host_put_text(out, "os", "linux");
    host_put_text(out, "platform", platform);
    host_put_text(out, "platformFamily", platform);
    host_put_text(out, "platformVersion", version);
    host_put_text(out, "kernelVersion", name.release);
    host_put_text(out, "kernelArch", name.machine);
    buffer_append_char(out, '}');
}

/* The file system that the data is on. */
static void host_put_disk(struct buffer *out, const char *path)
{
    struct statvfs status;

    if (statvfs(path, &status) != 0) {
        buffer_append_text(out, ",\"Disk\":null");
        return;
    }
    const uint64_t block = status.f_frsize;
    const uint64_t used = status.f_blocks - status.f_bfree;
    const uint64_t files_used = status.f_files - status.f_ffree;

    buffer_append_text(out, ",\"Disk\":{\"path\":");
    json_put_string(out, slice_from_text(path));
    buffer_printf(out, ",\"total\":%" PRIu64 ",\"free\":%" PRIu64 ",\"used\":%" PRIu64,
                  status.f_blocks * block, status.f_bavail * block, used * block);
    buffer_printf(
        out, ",\"usedPercent\":%.6g",
        used + status.f_bavail == 0 ? 0 : 100 * (double)used / (double)(used + status.f_bavail));
    buffer_printf(out,
                  ",\"inodesTotal\":%" PRIu64 ",\"inodesUsed\":%" PRIu64 ",\"inodesFree\":%" PRIu64
                  ",\"inodesUsedPercent\":%.6g}",
                  (uint64_t)status.f_files, files_used, (uint64_t)status.f_ffree,
                  status.f_files == 0 ? 0 : 100 * (double)files_used / (double)status.f_files);
}

/* Threads of this process; 0: the system does not tell. */
static uint64_t host_threads(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[HOST_LINE_BYTES_MAX];
    uint64_t threads = 0;

    for (int i = 0; file != NULL && i < HOST_LINES_MAX && fgets(line, sizeof(line), file) != NULL;
         i++) {
        if (sscanf(line, "Threads: %" SCNu64, &threads) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file); /* only read from */
    }
    return threads;
}

void http_agent_put_runtime(struct buffer *out)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct utsname name;

    if (uname(&name) != 0) {
        memset(&name, 0, sizeof(name));
    }
    const char *arch = strcmp(name.machine, "x86_64") == 0    ? "amd64"
                       : strcmp(name.machine, "aarch64") == 0 ? "arm64"
                                                              : name.machine;

    buffer_append_text(out, "\"runtime\":{\"arch\":");
    json_put_string(out, slice_from_text(arch));
    buffer_printf(out,
                  ",\"cpu_count\":\"%ld\",\"goroutines\":\"%" PRIu64
                  "\",\"max_procs\":\"%ld\",\"os\":\"linux\"}",
                  processors, host_threads(), processors);
}

void http_agent_host(struct http_request *request)
{
    const char *data_dir = request->server->config->data_dir;
    struct buffer body = {0};
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    buffer_append_char(&body, '{');
    host_put_memory(&body);
    host_put_cpus(&body);
    host_put_system(&body, now.tv_sec);
    host_put_disk(&body, data_dir == NULL ? "/" : data_dir);
    buffer_printf(&body, ",\"CollectionTime\":%" PRIu64 ",\"Errors\":null}",
                  (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

/* As later versions of Consul have it. */
void http_agent_version(struct http_request *request)
{
    http_reply_json(request, SLICE_LITERAL("{\"SHA\":\"\",\"BuildDate\":\"1970-01-01T00:00:01Z\","
                                           "\"HumanVersion\":\"" PROCONSUL_CONSUL_VERSION
                                           "\",\"FIPS\":\"\"}"));
}
