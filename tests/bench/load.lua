-- What wrk sends. BENCH_OPERATION is "get": the URL as it stands; or "put": 128 bytes to one of
-- 10,000 keys, with a counter in the value, so that every PUT changes something. At the end one
-- line "RESULT {json}", for loads.py.

local KEY_COUNT = 10000
local VALUE_BYTES = 128

local operation = os.getenv("BENCH_OPERATION")
local stamp = os.getenv("BENCH_STAMP") or "0"
local threads = {}

function setup(thread)
    thread:set("thread_number", #threads)
    table.insert(threads, thread)
end

if operation == "put" then
    acknowledged = 0 -- Globals, for done() reads them through thread:get().
    refused = 0
    local count = 0

    function request()
        count = count + 1
        local value = stamp .. "-" .. thread_number .. "-" .. count .. "-"
        value = value .. string.rep("x", VALUE_BYTES - #value)
        local path = wrk.path .. thread_number .. "-" .. count % KEY_COUNT
        return wrk.format("PUT", path, nil, value)
    end

    -- A status of 200 is not enough: a PUT that did nothing says false.
    function response(status, headers, body)
        if status >= 200 and status < 300 and body:sub(1, 4) == "true" then
            acknowledged = acknowledged + 1
        else
            refused = refused + 1
        end
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    local good = summary.requests - errors.status
    local bad = errors.status
    if operation == "put" then
        good, bad = 0, 0
        for _, thread in ipairs(threads) do
            good = good + thread:get("acknowledged")
            bad = bad + thread:get("refused")
        end
    end
    bad = bad + errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format('RESULT {"operations": %d, "errors": %d, "duration_us": %d, ' ..
        '"latency_us_p50": %d, "latency_us_p99": %d}\n', good, bad, summary.duration,
        latency:percentile(50), latency:percentile(99)))
end
