"""Two and three processes, each with its share of the objects: the fit of one."""

import os
import shutil
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
    number, count, address, path, out, die, save = sys.argv[1:]
    jax.distributed.initialize(address, int(count), int(number), heartbeat_timeout_seconds=10)
    import robusta_prob as rp
    from robusta_prob.inference import em
    steps, take = 0, em.step
    def step(*given, **more):
        global steps
        steps += 1
        return take(*given, **more)
    em.step = step
    passes = 0
    def callback(line):
        global passes
        passes += 1
        if die == number and passes == 5:
            import os
            os._exit(9)
    data = rp.read(path, in_memory=False)
    checkpoint = rp.Checkpoint(save, seconds=0.0) if save else None
    fit = rp.fit(data, 5, batch_rows=128, callback=callback, checkpoint=checkpoint)
    print(steps)
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


def _run(tmp_path, count, die="none", save=""):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    rest = [str(count), _address(), str(tmp_path / "data.h5"), str(tmp_path / f"fit{count}"), die, save]
    codes, told = _together([script, str(number), *rest] for number in range(count))
    return codes, told


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Where two processes left their fits, and how many steps each took."""
    folder = tmp_path_factory.mktemp("two")
    rp.write(toy(900, 60, seed=0).data, folder / "data.h5")
    codes, told = _run(folder, 2)
    assert codes == [0, 0], told
    return folder, [int(out.split()[-1]) for out, _ in told]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_objects_and_end_at_the_fit_of_one(of_two, count):
    tmp_path, _ = of_two
    if count > 2:
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
    (_, errors), _ = told
    assert "another process was lost" in errors or "heartbeat" in errors.lower(), errors
    assert not list(tmp_path.glob("fit2.*"))


def test_processes_go_on_where_one_was_lost_and_end_with_the_same_bits(of_two, tmp_path):
    (folder, steps), alone = of_two, rp.load(of_two[0] / "fit2.0.h5")
    shutil.copy(folder / "data.h5", tmp_path)
    save = str(tmp_path / "save")
    codes, _ = _run(tmp_path, 2, die="1", save=save)
    assert codes[1] == 9 and codes[0] != 0
    assert sorted(x.name for x in tmp_path.glob("save*"))[::2] == ["save.0-of-2", "save.1-of-2"]
    (tmp_path / "save.0-of-2.before").replace(tmp_path / "save.0-of-2")  # as if it had not come to write it
    codes, told = _run(tmp_path, 2, save=save)
    assert codes == [0, 0], told
    again = [int(out.split()[-1]) for out, _ in told]
    assert again[0] == again[1] <= steps[0] - 3  # of the five passes three or four are not made again
    for number in range(2):
        fit = rp.load(tmp_path / f"fit2.{number}.h5")
        np.testing.assert_array_equal(fit.basis, alone.basis)
        np.testing.assert_array_equal(fit.coefficients, alone.coefficients)
    with pytest.raises(ValueError, match="processes '2', now '1'"):
        rp.fit(
            rp.read(tmp_path / "data.h5", in_memory=False),
            5,
            batch_rows=128,
            checkpoint=tmp_path / "save.0-of-2",
        )


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
