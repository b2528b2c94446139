"""A client of the Kubernetes container runtime interface (CRI v1), as far as the tests need it.

    cri.py SOCKET    reads lines ["METHOD", {request}], answers each with one line {response} or {"error": "text"}

The messages are described here by hand: number, name and type of the fields that are used; others are passed over.
"""

import json
import sys

import grpc

# A type is int (varint), str, bytes, dict (a map of strings), or a message's name; [type] is a repeated field.
METADATA = {1: ("name", str), 2: ("uid", str), 3: ("namespace", str), 4: ("attempt", int)}
MESSAGES = {
    "Int64": {1: ("value", int)},
    "Image": {1: ("image", str)},
    "PodMetadata": METADATA,
    "ContainerMetadata": {1: ("name", str), 2: ("attempt", int)},
    "Port": {1: ("protocol", int), 2: ("container_port", int), 3: ("host_port", int), 4: ("host_ip", str)},
    "Namespaces": {1: ("network", int), 2: ("pid", int), 3: ("ipc", int), 4: ("target_id", str)},
    "Profile": {1: ("profile_type", int), 2: ("localhost_ref", str)},
    "PodSecurity": {1: ("namespace_options", "Namespaces"), 9: ("seccomp", "Profile")},
    "PodLinux": {1: ("cgroup_parent", str), 2: ("security_context", "PodSecurity"), 3: ("sysctls", dict)},
    "Pod": {1: ("metadata", "PodMetadata"), 2: ("hostname", str), 3: ("log_directory", str), 5: ("port_mappings", ["Port"]),
            6: ("labels", dict), 8: ("linux", "PodLinux")},
    "Variable": {1: ("key", str), 2: ("value", str)},
    "Mount": {1: ("container_path", str), 2: ("host_path", str), 3: ("readonly", int), 5: ("propagation", int)},
    "Resources": {1: ("cpu_period", int), 2: ("cpu_quota", int), 3: ("cpu_shares", int), 4: ("memory_limit_in_bytes", int),
                  5: ("oom_score_adj", int), 6: ("cpuset_cpus", str)},
    "Capabilities": {1: ("add_capabilities", [str]), 2: ("drop_capabilities", [str])},
    "Security": {1: ("capabilities", "Capabilities"), 2: ("privileged", int), 3: ("namespace_options", "Namespaces"),
                 5: ("run_as_user", "Int64"), 7: ("readonly_rootfs", int), 8: ("supplemental_groups", [int]),
                 11: ("no_new_privs", int), 12: ("run_as_group", "Int64"), 13: ("masked_paths", [str]),
                 14: ("readonly_paths", [str]), 15: ("seccomp", "Profile")},
    "ContainerLinux": {1: ("resources", "Resources"), 2: ("security_context", "Security")},
    "Container": {1: ("metadata", "ContainerMetadata"), 2: ("image", "Image"), 3: ("command", [str]), 4: ("args", [str]),
                  5: ("working_dir", str), 6: ("envs", ["Variable"]), 7: ("mounts", ["Mount"]), 11: ("log_path", str),
                  14: ("tty", int), 15: ("linux", "ContainerLinux")},
    "Network": {1: ("ip", str)},
    "PodStatus": {1: ("id", str), 3: ("state", int), 5: ("network", "Network"), 9: ("runtime_handler", str)},
    "ContainerStatus": {1: ("id", str), 3: ("state", int), 4: ("created_at", int), 5: ("started_at", int),
                        6: ("finished_at", int), 7: ("exit_code", int), 10: ("reason", str), 11: ("message", str)},
    "Cpu": {2: ("usage_core_nano_seconds", "Int64")},
    "Memory": {2: ("working_set_bytes", "Int64")},
    "Stats": {2: ("cpu", "Cpu"), 3: ("memory", "Memory")},
    "Condition": {1: ("type", str), 2: ("status", int), 3: ("reason", str), 4: ("message", str)},
    "Conditions": {1: ("conditions", ["Condition"])},
    "PodFound": {1: ("id", str)},
    "ContainerFound": {1: ("id", str)},
}
POD_ID, CONTAINER_ID = {1: ("pod_sandbox_id", str)}, {1: ("container_id", str)}
METHODS = {  # service, request, response
    "Version": ("Runtime", {}, {2: ("runtime_name", str), 3: ("runtime_version", str), 4: ("runtime_api_version", str)}),
    "Status": ("Runtime", {}, {1: ("status", "Conditions")}),
    "RunPodSandbox": ("Runtime", {1: ("config", "Pod"), 2: ("runtime_handler", str)}, POD_ID),
    "StopPodSandbox": ("Runtime", POD_ID, {}),
    "RemovePodSandbox": ("Runtime", POD_ID, {}),
    "PodSandboxStatus": ("Runtime", POD_ID, {1: ("status", "PodStatus")}),
    "ListPodSandbox": ("Runtime", {}, {1: ("items", ["PodFound"])}),
    "CreateContainer": ("Runtime", {**POD_ID, 2: ("config", "Container"), 3: ("sandbox_config", "Pod")}, CONTAINER_ID),
    "StartContainer": ("Runtime", CONTAINER_ID, {}),
    "StopContainer": ("Runtime", {**CONTAINER_ID, 2: ("timeout", int)}, {}),
    "RemoveContainer": ("Runtime", CONTAINER_ID, {}),
    "ListContainers": ("Runtime", {}, {1: ("containers", ["ContainerFound"])}),
    "ContainerStatus": ("Runtime", CONTAINER_ID, {1: ("status", "ContainerStatus")}),
    "UpdateContainerResources": ("Runtime", {**CONTAINER_ID, 2: ("linux", "Resources")}, {}),
    "ReopenContainerLog": ("Runtime", CONTAINER_ID, {}),
    "ExecSync": ("Runtime", {**CONTAINER_ID, 2: ("cmd", [str]), 3: ("timeout", int)},
                 {1: ("stdout", bytes), 2: ("stderr", bytes), 3: ("exit_code", int)}),
    "ContainerStats": ("Runtime", CONTAINER_ID, {1: ("stats", "Stats")}),
    "PullImage": ("Image", {1: ("image", "Image")}, {1: ("image_ref", str)}),
    "RemoveImage": ("Image", {1: ("image", "Image")}, {}),
}


def varint(number):
    number &= (1 << 64) - 1  # a negative one is its two's complement in 64 bits
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def encoded(fields, message):
    """Returns a message in protocol buffers' wire format."""
    numbers = {name: (number, kind) for number, (name, kind) in fields.items()}
    return b"".join(encoded_field(*numbers[name], value) for name, value in message.items())


def encoded_field(number, kind, value):
    if isinstance(kind, list):
        return b"".join(encoded_field(number, kind[0], each) for each in value)
    if kind is dict:
        pair = {1: ("key", str), 2: ("value", str)}
        return b"".join(delimited(number, encoded(pair, {"key": key, "value": each})) for key, each in value.items())
    if kind is int:
        return varint(number << 3) + varint(int(value))
    return delimited(number, value.encode() if kind is str else encoded(MESSAGES[kind], value))


def delimited(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def read_varint(data, at):
    number, shift = 0, 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number - (1 << 64) if number >> 63 else number, at


def decoded(fields, data):
    """Returns a message as a dictionary; fields that were not sent have their type's zero."""
    message = {name: [] if isinstance(kind, list) else {int: 0, str: "", bytes: ""}.get(kind) for name, kind in fields.values()}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = read_varint(data, at)
        elif wire == 2:
            length, at = read_varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"field {number} has wire type {wire}")
        if number in fields:
            name, kind = fields[number]
            if isinstance(kind, list):
                message[name].append(value_of(kind[0], value))
            else:
                message[name] = value_of(kind, value)
    return message


def value_of(kind, value):
    if kind is int:
        return value
    return value.decode(errors="replace") if kind in (str, bytes) else decoded(MESSAGES[kind], value)


def main():
    channel = grpc.insecure_channel("unix:" + sys.argv[1])
    grpc.channel_ready_future(channel).result(timeout=30)
    for line in sys.stdin:
        method, request = json.loads(line)
        service, fields, answer = METHODS[method]
        call = channel.unary_unary(
            f"/runtime.v1.{service}Service/{method}",
            request_serializer=lambda message, fields=fields: encoded(fields, message),
            response_deserializer=lambda data, answer=answer: decoded(answer, data))
        try:
            print(json.dumps(call(request, timeout=60)), flush=True)
        except grpc.RpcError as error:
            print(json.dumps({"error": error.details()}), flush=True)


main()
