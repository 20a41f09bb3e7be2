"""Scripts that start a plan on machines by hand, one for each machine."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from search_spaces.engines.commands import Address, Command, router
from search_spaces.engines.parts import deploy_of
from tuner.deploy.plan import FRONT_PORT, Files, Plan, Slot, placed

FIRST_PORTS = {"serve": 8001, "prefill": 8100, "decode": 8200}
FIRST_SIDE_CHANNELS = {"prefill": 5600, "decode": 5700}
FIRST_BOOTSTRAP_PORT = 8998
NODE = re.compile(r"@NODE_(\d+)@")
"""Stands for the address of a machine until the script runs."""

LOAD_BALANCER = "nginx.conf"


def shell_files(plan: Plan) -> Files:
    """A script for each machine, and the files that the workers read."""
    slots = placed(plan, plan.commands())
    nodes = 1 + max(node for slot in slots for node in slot.nodes)
    started = [_Started(plan, slot, alone=nodes == 1) for slot in slots]
    files: Files = {}
    for worker in started:
        files |= worker.command.files
    front, more = _front(plan, started, alone=nodes == 1)
    files |= more
    for node in range(nodes):
        lines = [line for worker in started for line in worker.lines(node)]
        if node == 0 and front is not None:
            lines.append(_line(front))
        files[_script_name(node, nodes)] = _script(plan, node, nodes, lines, resolved=[*more] if nodes > 1 else [])
    return files


class _Started:
    """One worker with its own ports, on its own GPUs."""

    def __init__(self, plan: Plan, slot: Slot, *, alone: bool) -> None:
        self.slot = slot
        self.engine = plan.config.engine
        self.deploying = plan.facts.deploying
        self.host = "127.0.0.1" if alone else f"@NODE_{slot.nodes[0]}@"
        self.alone = alone
        role = slot.command.role
        sole = role == "serve" and slot.command.copies == 1
        port = FRONT_PORT if sole else FIRST_PORTS[role] + slot.copy
        self.bootstrap_port = FIRST_BOOTSTRAP_PORT + slot.copy
        first = FIRST_SIDE_CHANNELS.get(role)
        rendered = plan.commands(
            host=self.host,
            ports={**FIRST_PORTS, role: port},
            side_channels={} if first is None else {role: first + slot.copy * slot.command.gpus},
            bootstrap_port=self.bootstrap_port,
        )
        self.port = port
        self.command = next(command for command in rendered if command.role == role)

    @property
    def address(self) -> Address:
        return Address(host=self.host, port=self.port, bootstrap_port=self.bootstrap_port)

    def lines(self, node: int) -> list[str]:
        """What one machine has to run for this worker."""
        if node not in self.slot.nodes:
            return []
        env = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.slot.gpus)), **self.command.env}
        if self.deploying.side_channel_host and not self.alone and self.command.role != "serve":
            env[self.deploying.side_channel_host] = f"@NODE_{node}@"
        if len(self.slot.nodes) == 1:
            return [_line(self.command, env)]
        return self._part(node, env)

    def _part(self, node: int, env: Mapping[str, str]) -> list[str]:
        hosts = [f"@NODE_{other}@" for other in self.slot.nodes]
        rank = self.slot.nodes.index(node)
        across = deploy_of(self.engine).across_nodes
        if self.deploying.by_mpi:
            if rank:
                return []
            argv = across(self.command.argv, hosts=hosts, gpus=self.slot.gpus)
            return [_line(replace(self.command, argv=argv), self.command.env)]
        argv = across(self.command.argv, nodes=len(hosts), rank=str(rank), leader=hosts[0])
        return [_line(replace(self.command, argv=argv), env)]


def _front(plan: Plan, started: Sequence[_Started], *, alone: bool) -> tuple[Command | None, Files]:
    """What listens on the front port where several workers share the load, and the files that it reads."""
    host = "127.0.0.1" if alone else "@NODE_0@"
    if plan.config.disaggregation is not None:
        prefill = [worker.address for worker in started if worker.command.role == "prefill"]
        decode = [worker.address for worker in started if worker.command.role == "decode"]
        command = router(
            plan.config, prefill, decode, placement=plan.placement(host=host, ports={"router": FRONT_PORT})
        )
        return _reading_resolved(command, alone=alone), dict(command.files)
    if len(started) == 1:
        return None, {}
    conf = load_balancer(f"{host}:{FRONT_PORT}", [f"{worker.host}:{worker.port}" for worker in started])
    argv = ("nginx", "-p", ".", "-c", LOAD_BALANCER, "-g", "daemon off; pid nginx.pid; error_log stderr;")
    command = Command(role="router", copies=1, gpus=0, argv=argv, files={LOAD_BALANCER: conf})
    return _reading_resolved(command, alone=alone), {LOAD_BALANCER: conf}


def _reading_resolved(command: Command, *, alone: bool) -> Command:
    """The command with files in which the script has put the machines' addresses."""
    if alone:
        return command
    return replace(command, argv=tuple(f"resolved-{part}" if part in command.files else part for part in command.argv))


def load_balancer(listen: str, servers: Sequence[str]) -> str:
    """An nginx configuration that sends each request to the worker with the fewest, and streams the answer.

    Its processes, one for each core, count a worker's requests together (`zone`); each may hold two connections for
    each of thousands of requests in flight, more than the usual 1024 open files.
    """
    upstream = "\n".join(f"    server {server};" for server in servers)
    return f"""\
worker_processes auto;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  client_max_body_size 0;
  upstream workers {{
    zone workers 256k;
    least_conn;
{upstream}
  }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://workers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""


def _line(command: Command, env: Mapping[str, str] | None = None) -> str:
    settings = [f"{name}={value}" for name, value in (env or {}).items()]
    words = (["env", *settings] if settings else []) + list(command.argv)
    return NODE.sub(r'"$NODE_\1"', shlex.join(words)) + " &"


def _script_name(node: int, nodes: int) -> str:
    return "serve.sh" if nodes == 1 else f"serve-node-{node}.sh"


def _script(plan: Plan, node: int, nodes: int, lines: Sequence[str], resolved: Sequence[str]) -> str:
    where = "" if nodes == 1 else f", machine {node} of {nodes} (0 to {nodes - 1})"
    addresses = (
        [f': "${{NODE_{other}:?the address of machine {other}}}"' for other in range(nodes)] if nodes > 1 else []
    )
    edits = ";".join(f"s/@NODE_{other}@/'\"$NODE_{other}\"'/g" for other in range(nodes))
    puts = [f"sed -e '{edits}' {name} > resolved-{name}" for name in resolved] if node == 0 else []
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {plan.described}{where}. Ends all that it started when one of them ends.",
            "set -euo pipefail",
            'cd "$(dirname "$0")"',
            *addresses,
            *puts,
            "trap 'exit 130' INT TERM",
            "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT",
            *(lines or ["# Started from another machine by mpirun."]),
            "wait -n" if lines else "",
            "",
        ]
    )
