"""Two and three processes, each with its share of the objects: the fit of one."""

import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.simulate import largest_angle, toy

SCRIPT = textwrap.dedent(
    """
    import sys
    import jax
    number, count, address, path, out, die = sys.argv[1:]
    jax.distributed.initialize(address, int(count), int(number), heartbeat_timeout_seconds=10)
    import robusta_prob as rp
    passes = 0
    def callback(line):
        global passes
        passes += 1
        if die == number and passes == 3:
            import os
            os._exit(9)
    data = rp.read(path, in_memory=False)
    fit = rp.fit(data, 5, batch_rows=128, callback=callback)
    rp.save(fit, f"{out}.{number}.h5")
    """
)


def _address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _together(commands):
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, *command], env=environment, text=True, **pipes)
        for command in commands
    ]
    told = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], told


def _run(tmp_path, count, die="none"):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    rest = [str(count), _address(), str(tmp_path / "data.h5"), str(tmp_path / f"fit{count}"), die]
    codes, told = _together([script, str(number), *rest] for number in range(count))
    return codes, [errors for _, errors in told]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_objects_and_end_at_the_fit_of_one(tmp_path, count):
    rp.write(toy(900, 60, seed=0).data, tmp_path / "data.h5")
    codes, told = _run(tmp_path, count)
    assert codes == [0] * count, told
    fits = [rp.load(tmp_path / f"fit{count}.{number}.h5") for number in range(count)]
    alone = rp.fit(rp.read(tmp_path / "data.h5", in_memory=False), 5, batch_rows=128)
    for fit in fits:
        np.testing.assert_array_equal(fit.basis, fits[0].basis)
        np.testing.assert_array_equal(fit.coefficients, fits[0].coefficients)
        assert fit.coefficients.shape == (900, 5) and fit.status.ok
    assert largest_angle(fits[0].basis, alone.basis) < 1e-4
    apart = np.abs(rp.reconstruct(fits[0]) - rp.reconstruct(alone)).max(1) > 0.02
    assert apart.sum() <= 2  # outliers with two solutions of nearly one height


def test_a_lost_process_ends_the_others_with_a_reason(tmp_path):
    rp.write(toy(900, 60, seed=0).data, tmp_path / "data.h5")
    codes, told = _run(tmp_path, 2, die="1")
    assert codes[1] == 9 and codes[0] != 0
    assert "another process was lost" in told[0] or "heartbeat" in told[0].lower(), told[0]
    assert not list(tmp_path.glob("fit2.*"))


def test_the_command_line_meets_the_others_and_one_speaks(tmp_path):
    rp.write(toy(2100, 60, seed=0).data, tmp_path / "data.h5")
    given = ["--coordinator", _address(), "--processes", "2", "--process"]
    command = ["-m", "robusta_prob.cli", "fit", tmp_path / "data.h5", "-k", "5", "-o", tmp_path / "run"]
    codes, told = _together([*command, "--on-disk", "--distributed", *given, str(i)] for i in range(2))
    assert codes == [0, 0], told
    assert "Results are in" in told[0][0]
    assert "objects" not in told[1][0]  # but for what gloo says of itself
    assert rp.load(tmp_path / "run" / "fit.h5").coefficients.shape == (2100, 5)
    codes, told = _together([[*command, *given, "0"]])
    assert codes == [2] and "are for --distributed" in told[0][1]
