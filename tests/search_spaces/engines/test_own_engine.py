"""A user's own engine: a folder of data that is read strictly, and the command that it becomes."""

import os
from pathlib import Path

import pytest

from search_spaces.config import Batching, Disaggregation, Engine, Layout, Precision, ServingConfig, Speculation
from search_spaces.engines.commands import Placement, commands
from search_spaces.engines.engine import engine_names, facts_of, find_engine, timed_as
from search_spaces.engines.laws import unsupported
from search_spaces.errors import InfeasibleError, InputError, UnknownNameError
from search_spaces.fit import check
from search_spaces.hardware.system import find_system
from search_spaces.models.model import find_model
from search_spaces.space import full_space

ENGINE = """\
title: My engine
versions: [1.2.0, '1.1']
times_of: vllm@0.27.0
command: ['{python}', -m, my_engine, '{checkpoint}', --host, '{host}', '--port={port}']
env: {MY_ENGINE_LOG: debug}
packages: {distributions: [my-engine], module: my_engine}
knobs:
  layout.tensor: --tp
  batching.max_sequences: {option: --max-seqs, times: [layout.tensor]}
  batching.max_batched_tokens: --max-tokens=
  precision.kv_cache: {option: --kv-dtype, values: {bf16: null, fp8: fp8_e4m3}}
  speculation.method: {option: --lookup, values: {none: null, ngram: true}}
  speculation.draft_length: {option: --lookup-length, values: {0: null}}
failures:
  out of memory: ['pool exhausted']
"""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "my-engine"
    made.mkdir()
    (made / "engine.yaml").write_text(ENGINE)
    return made


def own(folder: Path, text: str = "./my-engine") -> Engine:
    return find_engine(text, directory=folder.parent)


def refused(folder: Path, text: str) -> str:
    (folder / "engine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        own(folder)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder}/engine.yaml: ") for line in lines)
    return str(caught.value)


def test_a_folder_is_an_engine_of_its_name_at_its_first_release(folder):
    assert own(folder) == Engine(name="my-engine", version="1.2.0", folder=str(folder))
    assert own(folder, "./my-engine@1.1").version == "1.1"
    assert own(folder, str(folder)).folder == str(folder)
    assert facts_of(own(folder)).title == "My engine"


def test_its_command_is_spelled_from_its_data(folder):
    config = ServingConfig(
        engine=own(folder),
        layout=Layout(tensor=4, replicas=2),
        batching=Batching(max_sequences=64, max_batched_tokens=4096),
        precision=Precision(kv_cache="fp8"),
        speculation=Speculation(method="ngram", draft_length=3),
    )
    (command,) = commands(find_model("llama-3.1-8b"), config)
    assert command.shell == (
        "python -m my_engine meta-llama/Llama-3.1-8B-Instruct --host 127.0.0.1 --port=8000 --tp 4 --max-seqs 256 "
        "--max-tokens=4096 --kv-dtype fp8_e4m3 --lookup --lookup-length 3"
    )
    assert command.env == {"MY_ENGINE_LOG": "debug"}
    assert "Start 2 of these, each with 4 GPUs of its own" in command.note


def test_what_stands_for_none_is_left_out(folder):
    placement = Placement(host="0.0.0.0", ports={"serve": 9000}, checkpoint="/models/mine")
    (command,) = commands(find_model("llama-3.1-8b"), ServingConfig(engine=own(folder)), placement=placement)
    assert command.shell == (
        "python -m my_engine /models/mine --host 0.0.0.0 --port=9000 --tp 1 --max-seqs 256 --max-tokens=8192"
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"layout": Layout(pipeline=2)}, "my-engine does not take layout.pipeline 2: it must be 1"),
        (
            {"batching": Batching(receive_interval=2)},
            "my-engine does not take batching.receive_interval 2: it must be 1",
        ),
        (
            {"speculation": Speculation(method="mtp", draft_length=1)},
            "my-engine does not take speculation.method mtp: it must be none or ngram",
        ),
        ({"disaggregation": Disaggregation()}, "my-engine does not take mode disaggregated: it must be aggregated"),
    ],
)
def test_a_knob_that_it_does_not_spell_stays_as_it_is(folder, changed, reason):
    config = ServingConfig(engine=own(folder), **changed)
    assert reason in unsupported(config)
    with pytest.raises(InfeasibleError, match=reason):
        commands(find_model("llama-3.1-8b"), config)


def test_kernel_times_are_those_of_the_engine_that_it_names(folder):
    assert timed_as(own(folder, "./my-engine@7.0.0")) == Engine(name="vllm", version="0.27.0")


def test_equal_folders_are_equal_engines_and_no_registry_remembers_them(folder):
    assert own(folder) == own(folder)
    assert hash(own(folder)) == hash(own(folder))
    assert "my-engine" not in engine_names()
    with pytest.raises(UnknownNameError):
        find_engine("my-engine")


def test_nothing_in_the_folder_is_imported(folder):
    (folder / "command.py").write_text("raise SystemExit('imported')")
    (folder / "laws.py").write_text("raise SystemExit('imported')")
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    config = ServingConfig(engine=own(folder))
    assert unsupported(config) is None
    assert commands(find_model("llama-3.1-8b"), config)


# Folders that are none


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"my-engine/engine\.yaml: cannot be read: No such file or directory"):
        find_engine("./my-engine", directory=tmp_path)


def test_a_folder_without_its_file_is_refused(tmp_path):
    (tmp_path / "my-engine").mkdir()
    with pytest.raises(InputError, match=r"my-engine/engine\.yaml: cannot be read: No such file or directory"):
        find_engine("./my-engine", directory=tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "my-engine").write_text("")
    with pytest.raises(InputError, match=r"must be a folder with engine\.yaml in it, but is a file"):
        find_engine("./my-engine", directory=tmp_path)


@pytest.mark.parametrize("text", ["..", "../my-engine", "./a/../my-engine", "/tmp/../my-engine"])
def test_no_folder_is_named_by_the_one_above(tmp_path, text):
    with pytest.raises(InputError, match=r"an engine's folder is named without `\.\.`"):
        find_engine(text, directory=tmp_path)


@pytest.mark.parametrize("name", [".", "./My Engine", "./-rf", "./mein-motör", "./" + "x" * 300])
def test_a_folder_s_name_is_one_that_an_engine_can_have(tmp_path, name):
    with pytest.raises(InputError, match=r"the folder's name is the engine's: a-z, 0-9") as caught:
        find_engine(name, directory=tmp_path / "Experiments")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["./a\x1b[31m", "./a\0b", "./a\nb/engine"])
def test_control_characters_name_no_folder(tmp_path, name):
    with pytest.raises(InputError, match="an engine's folder has a printable name") as caught:
        find_engine(name, directory=tmp_path)
    assert str(caught.value).isprintable()


def test_a_folder_cannot_take_the_name_of_an_engine_that_is_known(folder):
    taken = folder.rename(folder.parent / "vllm")
    with pytest.raises(InputError, match="servetune comes with an engine of that name"):
        find_engine("./vllm", directory=taken.parent)


def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"loop/engine\.yaml: cannot be read: Too many levels of symbolic links"):
        find_engine("./loop", directory=tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "my-engine").mkdir()
    os.mkfifo(tmp_path / "my-engine" / "engine.yaml")
    with pytest.raises(InputError, match="must be a file"):
        find_engine("./my-engine", directory=tmp_path)


def test_a_file_of_absurd_size_is_not_read(folder):
    (folder / "engine.yaml").write_text(ENGINE + "#" * (1 << 16))
    with pytest.raises(InputError, match=r"must have at most 65536 bytes, but has 66\d\d\d"):
        own(folder)


def test_binary_data_is_no_text(folder):
    (folder / "engine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="must be UTF-8 text, but byte 0 is not"):
        own(folder)


# Files that describe none


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping with the keys title, versions, command, but got nothing"),
        ("- a\n", "but got a list of 1"),
        (ENGINE + "title: again\n", "line 16, column 1: found duplicate key"),
        ("a: &a [x]\nb: *a\n", "line 2, column 4: aliases are not taken here; write it out"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "aliases are not taken here"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("[" * 10_000, "nested too deeply"),
        (ENGINE + "comand: x\n", "unknown key 'comand'; valid: command, "),
        (ENGINE + "name: other\n", "name: is the folder's, and not given here"),
        (ENGINE.replace("[1.2.0, '1.1']", "[1.2, 1.1]"), "versions[0]: must be text, but got 1.2"),
        (ENGINE.replace("[1.2.0, '1.1']", "[2026-01-01]"), "versions[0]: must be text, a number, a list or a mapping"),
        (ENGINE.replace("[1.2.0, '1.1']", "[]"), "`at least one release` must hold"),
        (ENGINE + "default_max_sequences: 0\n", "`1 <= default_max_sequences <= 1000000` must hold, but got 0"),
        (ENGINE + "default_max_sequences: 99999\n", "must hold, but got 99999 > 8192"),
        (ENGINE + "default_max_sequences: yes\n", "default_max_sequences: must be a whole number, but got 'yes'"),
        (ENGINE + "memory_fraction: .nan\n", "memory_fraction: must be a finite number"),
        (ENGINE + "memory_fraction: 1.5\n", "`0 < memory_fraction < 1` must hold, but got 1.5"),
        (ENGINE + f"default_max_sequences: {10**40}\n", "default_max_sequences: must be a finite number of ordinary"),
        (ENGINE + "admission: never\n", "admission: must be one of 'reserve' or 'preempt', but got 'never'"),
        (ENGINE + "colour: blue\n", "`colour like #1f5fbf` must hold"),
        (ENGINE + "takes: [layout.pipeline]\n", "takes: is for engines with Python of their own"),
        (ENGINE + "disaggregates: true\n", "disaggregates: is for engines with Python of their own"),
        (ENGINE + "dynamo: {module: dynamo.mine}\n", "dynamo: is for engines with Python of their own"),
        (ENGINE + "deploying: {llm_d: true}\n", "deploying: is for engines with Python of their own"),
        (ENGINE + "methods: [none, mtp]\n", "methods: is for engines with Python of their own"),
        (ENGINE + "kv_cache: {bf16: auto}\n", "kv_cache: is for engines with Python of their own; spell each knob"),
        (ENGINE + "image: 'x:{tag}'\n", "image: may have the placeholder {version} only"),
        (ENGINE.replace("layout.tensor:", "layout.tensr:"), "unknown knob 'layout.tensr'; valid: layout.tensor, "),
        (
            ENGINE.replace("--tp", "tp"),
            "knobs.layout.tensor.option: must be an option such as --max-seqs, but got 'tp'",
        ),
        (ENGINE.replace("--tp", "7"), "knobs.layout.tensor: must be a mapping, but got 7"),
        (ENGINE.replace("times: [layout.tensor]", "times: [tensor]"), "times: unknown size 'tensor'; valid: layout.t"),
        (
            ENGINE.replace("ngram: true", "ngam: true"),
            "knobs.speculation.method.values: unknown value 'ngam'; valid: ngram",
        ),
        (
            ENGINE.replace("  speculation.draft_length: {option: --lookup-length, values: {0: null}}\n", ""),
            "knobs: speculation.method needs speculation.draft_length beside it",
        ),
        (ENGINE.replace("{none: null, ngram", "{ngram"), "knobs.speculation.method.values: must have `none`"),
        (ENGINE.replace("{host}", "{hots}"), "command[5]: unknown placeholder 'hots'; valid: host, "),
        (ENGINE.replace("{host}", "{host.__class__}"), "command[5]: unknown placeholder 'host.__class__'"),
        (ENGINE.replace("{host}", "{host!r}"), "command[5]: unknown placeholder 'host!r'"),
        (ENGINE.replace("{host}", "{host"), "command[5]: expected '}' before end of string"),
        (ENGINE.replace("{host}", "a\\x00b").replace("'a", '"a').replace("b'", 'b"'), "command[5]: must be printable"),
        (ENGINE.replace("{host}", "{python}"), "command[5]: {python} must be the first argument, alone"),
        (ENGINE.replace("'{checkpoint}', ", ""), "command: must have {checkpoint} in it"),
        (ENGINE.replace("command:", "#"), "command: missing"),
        (ENGINE.replace("MY_ENGINE_LOG", "'A=B'"), "env: must name environment variables, but got 'A=B'"),
        (ENGINE.replace("pool exhausted", "(pool"), "failures.out of memory: no regular expression (missing )"),
        (ENGINE.replace("vllm@0.27.0", "vlm"), "times_of: unknown engine 'vlm'; valid: vllm, "),
        (ENGINE.replace("vllm@0.27.0", "vllm@0.1.0"), "times_of: unknown vllm version '0.1.0'"),
        (ENGINE + f"source: {'x' * 3000}\n", "source: must have at most 2000 characters, but has 3000"),
        (ENGINE + f"metrics_on: [{'x, ' * 600}]\n", "metrics_on: must have at most 500 entries, but has 600"),
    ],
)
def test_a_file_that_describes_no_engine_is_refused_with_file_and_key(folder, text, said):
    assert said in refused(folder, text)


def test_everything_that_is_wrong_is_said_at_once(folder):
    said = refused(folder, ENGINE.replace("{host}", "{hots}").replace("--tp", "tp") + "colour: '#ffffff'\n")
    assert len(said.splitlines()) == 2


# What is searched of it


def space_of(*engines: Engine, model: str = "llama-3.1-8b"):
    return full_space(find_model(model), find_system("b200"), engines, 8, runner="simulated")


def test_a_knob_that_no_engine_takes_is_what_the_engine_has_by_itself(folder):
    space = space_of(own(folder))
    assert space.dimensions["mode"] == ("aggregated",)
    assert space.dimensions["layout.tensor"] == (1, 2, 4, 8)
    assert space.dimensions["precision.kv_cache"] == ("bf16", "fp8")
    assert space.dimensions["speculation.method"] == ("none",), "no acceptance is known of its other method"
    assert not {"layout.pipeline", "precision.weights"} & space.dimensions.keys()
    config = space.config({name: values[0] for name, values in space.dimensions.items()})
    assert (config.layout.pipeline, config.precision.weights) == (1, "bf16")
    assert not any(name.startswith("prefill.") for name in space.dimensions)


def test_who_asks_for_a_knob_that_no_engine_takes_is_answered_by_name(folder):
    with pytest.raises(InputError, match=r"layout\.pipeline is not searched here: my-engine does not take it"):
        space_of(own(folder)).restricted({"layout.pipeline": (1, 2)})


def test_a_limit_that_it_does_not_take_is_the_one_that_it_has(folder):
    (folder / "engine.yaml").write_text(
        ENGINE.replace("  batching.max_sequences: {option: --max-seqs, times: [layout.tensor]}\n", "")
        + "default_max_sequences: 48\n"
    )
    space = space_of(own(folder))
    assert "batching.max_sequences" not in space.dimensions
    assert space.config({name: v[0] for name, v in space.dimensions.items()}).batching.max_sequences == 48
    config = ServingConfig(engine=own(folder), batching=Batching(max_sequences=64))
    assert unsupported(config) == "my-engine does not take batching.max_sequences 64: it must be 48"


def test_beside_another_engine_the_knobs_are_those_of_both(folder):
    space = space_of(own(folder), find_engine("vllm"))
    assert space.dimensions["mode"] == ("aggregated", "disaggregated")
    assert space.dimensions["layout.pipeline"] == (1, 2)


def test_it_loads_a_model_only_as_it_is_where_it_takes_no_number_format(folder):
    model, system = find_model("llama-3.1-8b"), find_system("b200")
    config = ServingConfig(engine=own(folder), precision=Precision(weights="fp8"))
    with pytest.raises(InfeasibleError, match=r"my-engine loads llama-3\.1-8b as it is, in bf16, not in fp8"):
        check(model, system, config, gpus=1, max_request_tokens=1000)


def test_a_number_format_that_it_takes_is_loaded_from_what_is_published_or_made_while_it_loads(folder):
    told = "  precision.weights: {option: --quant, values: {bf16: null, fp8: fp8, nvfp4: null}}\nfailures:"
    (folder / "engine.yaml").write_text(ENGINE.replace("failures:", told))

    def line(weights):
        config = ServingConfig(engine=own(folder), precision=Precision(weights=weights))
        return commands(find_model("llama-3.1-8b"), config)[0].shell

    assert "--quant" not in line("bf16")
    assert "meta-llama/Llama-3.1-8B-Instruct --host" in line("fp8")
    assert line("fp8").endswith("--quant fp8")
    assert "nvidia/Llama-3.1-8B-Instruct-NVFP4" in line("nvfp4")
    assert "--quant" not in line("nvfp4")
