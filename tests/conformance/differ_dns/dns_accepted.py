"""Differences that stay, each explained in docs/dns.md. A rule looks at the question, at the steps that
led to it, at the first difference (path, ours, theirs, size of theirs), and at the settings."""
import json


def sizes_are_compared(question, settings):
    """We point into the question only where it ends in the domain, spelled as we do; Consul also to a
    part of the domain, and to names that happen to be those of the zone."""
    name = question.get("name", "")
    if question.get("type") in (2, 6) and below(question, "node"):
        return False
    domain = settings.get("domain", "consul").lower().strip(".")
    return ("." + name).endswith("." + domain) and ".." not in name and name == name.lower() and \
        not name.startswith(".") and not below(question, "hostmaster") and not below(question, "ns")


def below(question, word):
    return ".%s." % word in ".%s." % question.get("name", "").lower()


def answers_that_it_cannot_pack(question, steps, found, settings):
    """Metadata of more than 255 bytes, labels of more than 63, the SOA of the root: Consul says nothing at all."""
    return found[2] is None and \
        ("raw" not in question or not settings.get("domain", "consul").strip(".") or
         any(len(word) > 255 for word in json.dumps(steps).split('"')))


def addresses_below_the_alternative_domain(question, steps, found, settings):
    """Consul 1.8 moves their owner to the primary domain; later ones answer as asked, as we do."""
    return "alt_domain" in settings and found[0].startswith((".records", ".size", ".flags")) and \
        (below(question, "addr") or ".addr." in str(found[1]))


def flags_of_errors(question, steps, found, settings):
    """Consul sends a message that it cannot read back with all flags that it came with."""
    return found[0] == ".flags" and found[1].split()[:1] == ["qr"] and \
        set(found[2].split()) - set(found[1].split()) <= {"ra", "ad", "cd", "z", "tc"} and "aa" not in found[2]


def datacenter_written_as_later(question, steps, found, settings):
    """NAME.service.dc1.dc.consul, since Consul 1.14."""
    return below(question, settings["datacenter"].lower() + ".dc") or \
        b"\2dc" in bytes.fromhex(question.get("raw", "")).lower()


def backslashes(question, steps, found, settings):
    """Consul takes them as escape signs in metadata, which may fit then where ours do not."""
    return "\\\\" in json.dumps(found[1:]) or \
        (found[0] == ".flags" and "tc" in found[1] and "\\\\" in json.dumps(steps))


def addresses_in_any_spelling(question, steps, found, settings):
    """A service's address counts for its reverse name however it is written."""
    return below(question, "arpa") and found[2] in ("", 2, 3) and (found[1] in ("PTR", 0))


def answers_that_nobody_can_read(question, steps, found, settings):
    """Consul writes targets with empty labels, so that the message ends early, and in a long domain reverse
    names of more than 255 bytes; we leave them out."""
    return found[0] == ".records.bytes" and not found[1] or \
        (found[:3] == (".rcode", 2, 0) and below(question, "arpa") and len(settings.get("domain", "")) > 160)


def pointers_forwards(question, steps, found, settings):
    """A compressed name leads backwards; Consul follows others, too."""
    return found[:2] == (".rcode", 1) and "c0" in question.get("raw", "")


def names_that_recursors_tell(question, steps, found, settings):
    """We compress them as a whole only."""
    return found[0] == ".size" and bool(settings.get("recursors")) and ".example" in json.dumps(steps)


def reverse_names_with_leading_zeros(question, steps, found, settings):
    """They are nobody's; Consul finds services by them."""
    return below(question, "in-addr.arpa") and any(
        len(label) > 1 and label.startswith("0") for label in question["name"].split("."))


def spaces_in_names(question, steps, found, settings):
    """Consul points to no name that holds one."""
    return found[0] == ".size" and any(" " in str(step["json"].get("Service", step["json"]).get("Address", ""))
                                       for step in steps if step["do"] == "register")


def records_in_a_question(question, steps, found, settings):
    """Records in a question are stepped over, not decoded, but for OPT among the additional ones."""
    counts = question.get("counts") or [int(question["raw"][at:at + 4] or "0", 16) for at in (8, 12, 16, 20)] \
        if "raw" in question or "counts" in question else [1]
    return any(counts[1:] if "raw" in question else counts[1:3]) and found[0] == ".rcode" and found[2] == 1


def own_names_are_never_forwarded(question, steps, found, settings):
    """Consul gives questions of type DS to its recursors, also those for names below the domain."""
    return bool(settings.get("recursors")) and (question.get("type") == 43 or "002b" in question.get("raw", ""))


def metadata_instead_of_an_address(question, steps, found, settings):
    """Of a shortened answer's targets Consul keeps the first record of that name, be it metadata."""
    return found[0] == ".records.additional" and found[1] == [] and \
        all(" TXT " in text for text in found[2])


def answers_larger_than_the_client_takes(question, steps, found, settings):
    """Consul cuts answers about services only."""
    size = (question.get("edns") or {}).get("size", 0)
    return not question.get("tcp") and "raw" not in question and found[3] > max(512, size)


def nodes_without_an_address(question, steps, found, settings):
    """Consul makes them aliases of the root."""
    addresses = {}
    for step in steps:
        name = step["json"].get("Node", "").lower() if step["json"] else ""
        if step["do"] == "deregister" and "ServiceID" not in step["json"]:
            addresses.pop(name, None)
        elif step["do"] == "register" and not (step["json"].get("SkipNodeUpdate") and name in addresses):
            addresses[name] = step["json"].get("Address", "")
    return "" in addresses.values() and "CNAME" in json.dumps(found[:3])


def one_answer_at_least(question, steps, found, settings):
    """Where not even one record fits into 512 bytes Consul sometimes tells none."""
    long_names = any(len(word) > 80 for word in json.dumps(steps).split('"'))
    return long_names and found[0] in (".answer", ".records.answer", ".records.additional") and not found[2]


def lies_are_passed_on(question, steps, found, settings):
    """A forwarded question goes on as it came; Consul writes it anew."""
    return bool(settings.get("recursors")) and ("counts" in question or "raw" in question) and \
        (found[1] in (2, None) or found[0] == ".question")


def spelling_of_addresses_behind_names(question, steps, found, settings):
    """An addr name that somebody registered with capitals keeps them; Consul's answer has it in lower case."""
    return ".addr." in str(found[1]) and str(found[1]).lower() == str(found[2]).lower()


def names_that_lead_to_themselves(question, steps, found, settings):
    """Consul writes the end of such an alias as a pointer to the question, we to its domain."""
    return found[0] == ".size" and any(
        str(address).strip(".").endswith(question.get("name", "?"))
        for step in steps if step["do"] == "register"
        for address in (step["json"].get("Address"), step["json"].get("Service", {}).get("Address")))


RULES = [
    names_that_lead_to_themselves,
    spelling_of_addresses_behind_names,
    lies_are_passed_on,
    one_answer_at_least,
    answers_larger_than_the_client_takes,
    nodes_without_an_address,
    metadata_instead_of_an_address,
    own_names_are_never_forwarded,
    records_in_a_question,
    answers_that_it_cannot_pack,
    addresses_below_the_alternative_domain,
    flags_of_errors,
    datacenter_written_as_later,
    backslashes,
    addresses_in_any_spelling,
    answers_that_nobody_can_read,
    pointers_forwards,
    names_that_recursors_tell,
    reverse_names_with_leading_zeros,
    spaces_in_names,
]


def explains(question, steps, found, settings):
    """Whether the difference stays."""
    return any(rule(question, steps, found, settings) for rule in RULES)
