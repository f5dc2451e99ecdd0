"""Differences that stay, each explained in docs/compatibility.md. A rule looks at a step, at where the
two answers differ first (path, ours, theirs), and at both answers."""
import json
import re


def repeats_a_member(text):
    found = []

    def notice(pairs):
        names = [name.lower() for name, _ in pairs]
        found.append(len(names) != len(set(names)))
        return dict(pairs)

    try:
        json.JSONDecoder(object_pairs_hook=notice).raw_decode(text.strip())
    except ValueError:
        pass
    return any(found)


def sent(step):
    """The body, in lower case."""
    return json.dumps(step["json"] if "json" in step else step.get("body")).lower()


def param(step, name):
    return [value for key, value in step.get("params", []) if key == name]


def last(found):
    return found[0].rpartition(".")[2]


# --- parts of the API that are left out, or kept small ---

def prepared_queries(step, found, ours, theirs):
    return step["path"].startswith("/v1/query")


def coordinates_are_told_not_measured(step, found, ours, theirs):
    return step["path"] in ("/v1/coordinate/datacenters", "/v1/coordinate/nodes")


def events_stay_where_they_are_fired(step, found, ours, theirs):
    return step["path"] == "/v1/event/list" and last(found) == "LTime"


def own_description(step, found, ours, theirs):
    return step["path"] in ("/v1/agent/members", "/v1/operator/raft/configuration", "/v1/agent/self")


def own_words_of_join(step, found, ours, theirs):
    return step["path"].startswith("/v1/agent/join") and ours["status"] == theirs["status"]


def no_answer_of_the_own_cache(step, found, ours, theirs):
    return "response type not correct" in str(theirs["body"])


def own_place_is_not_measured(step, found, ours, theirs):
    return "_agent" in param(step, "near")


def content_hash(step, found, ours, theirs):
    return last(found) == "ContentHash"


# --- more forgiving than 1.8, as later releases are ---

def default_namespace(step, found, ours, theirs):
    return bool(param(step, "ns")) and theirs["status"] == 400


def filtered_names(step, found, ours, theirs):
    return step["path"] == "/v1/catalog/services" and bool(param(step, "filter"))


def members_of_later_releases(step, found, ours, theirs):
    return theirs["status"] == 400 and "namespace" in sent(step)


# --- stricter ---

def the_last_of_several_members_counts(step, found, ours, theirs):
    return step.get("body") is not None and repeats_a_member(step["body"])


def numbers_beyond_64_bits(step, found, ours, theirs):
    return ours["status"] == 400 and re.search(r"\d{19}", sent(step)) is not None


def durations_beyond_64_bits(step, found, ours, theirs):
    return str(found[1]) == "0s" and str(found[2]).startswith("-2562047h")


def names_without_nul(step, found, ours, theirs):
    return ours["status"] in (400, 500) and "\\u0000" in sent(step)


def durations_of_checks_in_transactions(step, found, ours, theirs):
    return step["path"] == "/v1/txn" and "Failed to parse body" in str(theirs["body"]) and \
        "definition" in sent(step)


def ports_and_tags_in_bounds(step, found, ours, theirs):
    return ours["status"] == 400 and ("Invalid service port" in str(ours["body"]) or
                                      re.search(r"\"port\": -?\d{5}", sent(step)) is not None or
                                      "autopilot" in step["path"] and theirs["status"] == 200)


def values_as_lists_of_numbers(step, found, ours, theirs):
    return step["path"] == "/v1/txn" and "\"value\": [" in sent(step)


def members_without_effect_of_any_type(step, found, ours, theirs):
    return theirs["status"] == 400 and ("createindex" in sent(step) or "modifyindex" in sent(step))


def bytes_that_are_no_unicode_in_errors(step, found, ours, theirs):
    return ours["status"] == theirs["status"] >= 400 and "%FF" in step["path"]


def filters_are_checked_even_when_nothing_is_there(step, found, ours, theirs):
    return bool(param(step, "filter")) and ours["status"] == 500 and theirs["status"] == 200 and \
        theirs["body"] in ([], {}, None)


def own_words_for_bad_filters(step, found, ours, theirs):
    return bool(param(step, "filter")) and ours["status"] == theirs["status"] == 500


# --- defects of 1.8 that are not copied ---

def two_answers_in_one(step, found, ours, theirs):
    return step["path"].startswith("/v1/catalog/datacenters") and ours["status"] == theirs["status"] == 400


def lost_error_of_a_check(step, found, ours, theirs):
    return step["path"] == "/v1/txn" and "Missing node registration" in str(ours["body"])


def kinds_of_checks_are_looked_at_first(step, found, ours, theirs):
    return step["path"] == "/v1/agent/check/register" and \
        ("not part of Proconsul" in str(ours["body"]) or
         ours["status"] == theirs["status"] and "Scripts are disabled" in str(ours["body"]))


def aliases_are_judged_at_once_and_not_by_themselves(step, found, ours, theirs):
    said = json.dumps([ours["body"], theirs["body"]]).lower()
    return "alias" in said and last(found) in ("Output", "Status")


def no_keyring(step, found, ours, theirs):
    return step["path"] == "/v1/operator/keyring" and ours["status"] == 500


def outputs_that_the_catalog_hears_of_late(step, found, ours, theirs):
    return step["path"].startswith("/v1/health/") and last(found) == "Output" and \
        str(found[1]).startswith("TTL expired") and found[2] == ""


def maintenance_outlives_a_registration(step, found, ours, theirs):
    """Whatever the check of the maintenance changes: that it is there, or the state that it makes."""
    return "_service_maintenance:" in str(ours["body"]) and "_service_maintenance:" not in str(theirs["body"]) and \
        step["method"] == "GET"


def order_of_passing_instances(step, found, ours, theirs):
    bodies = [one["body"] for one in (ours, theirs)]
    return "passing" in step["path"] + str(step.get("params")) and all(isinstance(one, list) for one in bodies) and \
        sorted(map(str, bodies[0])) == sorted(map(str, bodies[1]))


def checks_follow_their_service(step, found, ours, theirs):
    return step["path"].startswith(("/v1/agent/checks", "/v1/agent/health")) and \
        last(found) in ("ServiceTags", "ServiceName")


def order_of_an_instance_s_checks(step, found, ours, theirs):
    return step["path"].startswith("/v1/agent/health/service")


def ids_are_checked_before_the_lock_delay(step, found, ours, theirs):
    return bool(param(step, "acquire")) and theirs["body"] is False and "failed session lookup" in str(ours["body"])


def listings_keep_the_index_of_a_deletion_by_a_shorter_prefix(step, found, ours, theirs):
    """Consul's has the whole table's then, as if nothing had ever been there."""
    ranks = [re.fullmatch(r"<index (\d+)>", str(one)) for one in found[1:]]
    return step["path"].startswith("/v1/kv/") and found[0] == ".headers.X-Consul-Index" and \
        re.search("recurse|keys", step["path"] + str(step.get("params"))) is not None and \
        ours["status"] == theirs["status"] == 404 and all(ranks) and int(ranks[0][1]) < int(ranks[1][1])


def no_gzip_of_no_bytes(step, found, ours, theirs):
    return found[0] == ".headers.Content-Encoding" and theirs["body"] == ""


RULES = [prepared_queries, no_gzip_of_no_bytes, coordinates_are_told_not_measured,
         ids_are_checked_before_the_lock_delay, events_stay_where_they_are_fired, own_description,
         own_words_of_join, own_place_is_not_measured, content_hash, default_namespace, filtered_names,
         filters_are_checked_even_when_nothing_is_there, own_words_for_bad_filters, lost_error_of_a_check,
         kinds_of_checks_are_looked_at_first, no_keyring, members_of_later_releases,
         the_last_of_several_members_counts, numbers_beyond_64_bits, durations_beyond_64_bits,
         names_without_nul, durations_of_checks_in_transactions, no_answer_of_the_own_cache,
         ports_and_tags_in_bounds, values_as_lists_of_numbers, members_without_effect_of_any_type,
         aliases_are_judged_at_once_and_not_by_themselves, bytes_that_are_no_unicode_in_errors,
         two_answers_in_one, checks_follow_their_service, order_of_an_instance_s_checks,
         order_of_passing_instances, maintenance_outlives_a_registration, outputs_that_the_catalog_hears_of_late,
         listings_keep_the_index_of_a_deletion_by_a_shorter_prefix]


def explains(step, found, ours, theirs):
    """Whether the difference stays."""
    if theirs["status"] == 0:
        return True  # Its handler ended in a panic: the connection was closed.
    return any(rule(step, found, ours, theirs) for rule in RULES)
