"""The meter: parts that add up, equal work, sleepers, counters that wrap or run backwards."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyweight.energy.counters import Counter, find_rapl
from flyweight.energy.machine import computer_kind
from flyweight.energy.meter import Account, Meter, meter
from flyweight.energy.power import Power

SLOW = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip


def spin(seconds: float) -> None:
    """Keep one core busy for so much CPU time."""
    since = time.thread_time()
    while time.thread_time() - since < seconds:
        pass


def adds_up(found: Meter, accounts: list[Account]) -> None:
    """The identity that the meter promises, in whole nanojoules."""
    answers = sum(each.taken.whole for each in accounts)
    assert answers == found.answers.whole
    assert answers + found.idle.whole + found.unattributed.whole == found.total
    for each in accounts:
        assert min(vars(each.reading).values()) >= 0
        assert min(vars(each.writing).values()) >= 0


def counter_of(readings: list[int], size: int = 0) -> Counter:
    """A counter that says these readings, then the last for ever."""
    left = iter(readings)
    last = [readings[0]]

    def read() -> list[int]:
        last[0] = next(left, last[0])
        if last[0] < 0:
            raise OSError("silent")
        return [last[0]]

    return Counter("a counter", 0.05, read, [size] if size else ())


def test_a_hundred_answers_at_once_add_up() -> None:
    accounts: list[Account] = []
    with meter() as m:

        def work(seed: int) -> None:
            chance = random.Random(seed)
            prompt = chance.choice([0, 0, 7, 900])
            with m.answer(prompt) as account:
                accounts.append(account)
                for _ in range(chance.randrange(6)):
                    spin(0.001)
                    if prompt and chance.random() < 0.5:
                        account.read(chance.randrange(1, 512))
                    elif prompt:
                        account.wrote(chance.randrange(1, 4))

        threads = [threading.Thread(target=work, args=(each,)) for each in range(100)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(accounts) == 100
    adds_up(m, accounts)
    assert m.answers.whole > 0


@SLOW
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "read", "wrote", "end", "settle", "work"]),
            st.integers(0, 5),
            st.integers(0, 2000),
        ),
        max_size=60,
    ),
    st.lists(st.integers(-1, 10**12), min_size=1, max_size=40),
    st.booleans(),
)
def test_any_order_of_events_and_any_counter_add_up(
    events: list[tuple[str, int, int]], readings: list[int], has_counter: bool
) -> None:
    counter = counter_of(readings, 10**12) if has_counter else None
    accounts: list[Account] = []
    with Meter(Power(cpu=counter, gpu=counter_of(readings))) as m:
        for what, which, amount in events:
            if what == "begin":
                accounts.append(m.begin(amount))
            elif what == "settle":
                m.settle()
            elif what == "work":
                spin(amount * 1e-7)
            elif accounts:
                account = accounts[which % len(accounts)]
                if account.ended:
                    continue
                if what == "read":
                    account.read(amount)
                elif what == "wrote":
                    account.wrote(amount)
                else:
                    account.end()
    adds_up(m, accounts)


def test_equal_work_gets_equal_joules_and_a_sleeper_none_of_its_neighbours() -> None:
    accounts: dict[str, Account] = {}
    with meter() as m:

        def work(name: str, seconds: float) -> None:
            with m.answer() as accounts[name]:
                if seconds:
                    spin(seconds)
                else:
                    time.sleep(0.3)

        threads = [
            threading.Thread(target=work, args=each)
            for each in (("one", 0.2), ("other", 0.2), ("double", 0.4), ("sleeper", 0.0))
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    took = {name: each.taken.whole for name, each in accounts.items()}
    assert took["other"] == pytest.approx(took["one"], rel=0.05)
    assert took["double"] == pytest.approx(2 * took["one"], rel=0.05)
    assert took["sleeper"] < 0.02 * took["one"]
    # watts times time, from the outside
    watts = computer_kind().core.value
    assert watts is not None
    assert took["one"] / 1e9 == pytest.approx(0.2 * watts, rel=0.05)


def test_tokens_of_one_pass_cost_alike_and_a_long_prompt_is_not_billed_to_its_neighbour() -> None:
    with meter() as m:
        writer, reader = m.begin(4), m.begin(8 * 512)
        writer.read(4)
        for _ in range(8):  # an engine's passes: a token of the one, 512 of the other's prompt
            spin(0.004)
            writer.wrote(1)
            reader.read(512)
        reader.wrote(1)
        writer.end()
        reader.end()
    assert reader.reading.whole > 10 * writer.writing.whole
    adds_up(m, [writer, reader])


def test_reading_and_writing_are_told_apart() -> None:
    with meter() as m, m.answer(64) as account:
        spin(0.03)
        account.read(64)
        for _ in range(10):
            spin(0.006)
            account.wrote(1)
    assert account.writing.whole == pytest.approx(2 * account.reading.whole, rel=0.25)


def test_a_counter_that_wraps_goes_on() -> None:
    counter = counter_of([10**12 - 3 * 10**8, 2 * 10**8], 10**12)
    counter.start()
    assert counter.advance(10**9) == 5 * 10**8


@pytest.mark.parametrize(
    ("readings", "size"),
    [
        ([5000, 5000, 4000], 0),
        ([0, 0, 10**15], 0),
        ([0, 0, -1], 0),
        ([9 * 10**14, 9 * 10**14, 10], 10**15),
        ([7, 7, 7], 0),
    ],
    ids=["backwards", "leap", "silent", "reset that no wrap explains", "stuck"],
)
def test_a_counter_that_cannot_be_believed_is_modelled_and_said(
    readings: list[int], size: int
) -> None:
    with Meter(Power(cpu=counter_of(readings, size))) as m, m.answer() as account:
        spin(0.7 if len(set(readings)) == 1 else 0.02)
    assert account.taken.modelled > 0
    assert account.taken.counted == 0
    assert m.joules(account.taken).kind == "modelled"
    [note] = m.power.notes
    assert "a counter" in note


class Chip:
    """A chip as a counter and the system tell of it: idle watts, and busy cores of ours and others.

    Its time is the meter's: energy and ticks come by what really passed and really ran.
    """

    def __init__(self, idle: float, core: float, others: float, step: int = 1) -> None:
        self.idle, self.core, self.others = idle, core, others
        self.step, self.said = step, (0, [0])  # nanoseconds between which it does not move
        self.since, self.ran = time.monotonic_ns(), time.process_time_ns()

    def _passed(self) -> tuple[int, int]:
        return time.monotonic_ns() - self.since, time.process_time_ns() - self.ran

    def read(self) -> list[int]:
        passed, ran = self._passed()
        if passed // self.step > self.said[0]:
            whole = round(self.idle * passed + self.core * (ran + self.others * passed))
            self.said = (passed // self.step, [whole])
        return self.said[1]

    @property
    def truth(self) -> float:
        """Joules so far."""
        passed, ran = self._passed()
        return (self.idle * passed + self.core * (ran + self.others * passed)) / 1e9

    def busy(self) -> int:
        passed, ran = self._passed()
        return (ran + round(self.others * passed)) // 10**7 * 10**7  # in ticks

    def power(self) -> Power:
        return Power(cpu=Counter("RAPL", 0.05, self.read), busy=self.busy)


def test_what_a_counter_says_of_others_is_not_ours() -> None:
    """Another process keeps three cores busy; ours is one, at the watts that the model assumes."""
    core = computer_kind().core.value or 0.0
    chip = Chip(idle=1.0, core=core, others=3.0)
    with Meter(chip.power()) as m:
        for _ in range(6):  # until it is seen how busy the chip is
            spin(0.05)
            m.settle()
        with m.answer() as account:
            for _ in range(10):
                spin(0.05)
                m.settle()
    found = m.joules(account.taken)
    assert found.low <= 0.5 * core <= found.high
    assert account.taken.counted < 0.5 * m.others
    adds_up(m, [account])


def test_after_a_calm_moment_work_is_measured_above_what_the_chip_takes_idle() -> None:
    """Whatever the model assumes: this chip takes 30 W idle and 2 W a busy core."""
    chip = Chip(idle=30.0, core=2.0, others=0.0)
    with Meter(chip.power()) as m:
        m.calm(0.6)
        assert m.power.parting.idle_seen == pytest.approx(30.0, rel=0.05)
        with m.answer() as account:
            spin(1.0)
    assert account.taken.counted / 1e9 == pytest.approx(2.0, rel=0.6)
    assert m.total / 1e9 == pytest.approx(chip.truth, rel=0.1)


def test_before_it_no_work_is_nothing_and_it_is_not_called_measured() -> None:
    chip = Chip(idle=0.1, core=1.0, others=0.0)  # less idle than any model assumes
    with Meter(chip.power()) as m, m.answer() as account:
        spin(0.3)
    found = m.joules(account.taken)
    assert account.taken.counted > 0
    assert found.kind == "modelled"
    assert "RAPL" in found.source


def test_a_calm_moment_costs_nothing_where_nothing_can_be_learned() -> None:
    since = time.perf_counter()
    with Meter(Power()) as m:
        m.calm(30.0)
    assert time.perf_counter() - since < 15


@pytest.mark.parametrize("step", [1, 10**6, 10**8], ids=["smooth", "1 ms", "100 ms"])
def test_a_counter_that_moves_in_steps_bills_no_idling_as_work(step: int) -> None:
    """A chip of 30 W idle and 4 W a busy core, settled far more often than it moves."""
    chip = Chip(idle=30.0, core=4.0, others=0.0, step=step)
    with Meter(chip.power()) as m:
        m.calm(0.7)
        assert m.power.parting.idle_seen == pytest.approx(30.0, rel=0.2)
        with m.answer(1) as account:
            account.read(1)
            for _ in range(300):
                spin(0.003)
                account.wrote()
    assert account.taken.counted / 1e9 == pytest.approx(0.9 * 4.0, rel=0.6)
    assert m.total / 1e9 == pytest.approx(chip.truth, rel=0.15)


def test_a_gpus_idling_is_not_an_answers() -> None:
    """80 W idle and nothing done, read ten times a second, told of every few milliseconds."""
    since = time.monotonic_ns()
    gpu = Counter(
        "NVML",
        0.05,
        lambda: [80 * (time.monotonic_ns() - since) // 10**8 * 10**8],
        idle_watts=80.0,
    )
    with Meter(Power(gpu=gpu)) as m, m.answer(1) as account:
        for _ in range(120):
            time.sleep(0.005)
            account.wrote()
    assert account.taken.counted < 0.1 * 80 * 0.6 * 1e9
    assert m.idle.counted > 0.7 * 80 * 0.6 * 1e9


def test_a_counter_that_is_set_back_loses_no_more_than_that_while() -> None:
    chip = Chip(idle=1.0, core=4.0, others=0.0)
    back = 0

    def read() -> list[int]:
        return [chip.read()[0] - back]

    with Meter(Power(cpu=Counter("RAPL", 0.05, read), busy=chip.busy)) as m:
        before = 0.0
        for place in range(6):
            if place == 3:
                back = chip.read()[0]
            spin(0.1)
            m.settle()
            if place == 3:
                before, since = m.total, chip.truth
        assert (m.total - before) / 1e9 == pytest.approx(chip.truth - since, rel=0.1)
    [note] = m.power.notes
    assert "RAPL ran backwards" in note


def test_a_counter_that_paused_is_counted_once() -> None:
    chip = Chip(idle=1.0, core=4.0, others=0.0)
    paused: list[int] = []

    def read() -> list[int]:
        return paused or chip.read()

    with Meter(Power(cpu=Counter("RAPL", 0.05, read), busy=chip.busy)) as m:
        spin(0.1)
        m.settle()
        paused = chip.read()
        for _ in range(8):
            spin(0.1)
            m.settle()
        assert m.unattributed.modelled > 0  # meanwhile
        paused = []
        spin(0.1)
        m.settle()
        truth = chip.truth
    # where the model says less than the truth, the counter makes up for it; where more, it stays
    most = max(truth, m.unattributed.modelled / 1e9 + m.idle.modelled / 1e9 + 1.5)
    assert 0.9 * truth <= m.total / 1e9 <= 1.1 * most


def test_a_counter_whose_driver_raises_is_no_error() -> None:
    chip = Chip(idle=1.0, core=4.0, others=0.0)
    calls = iter(range(10**6))

    def read() -> list[int]:
        if next(calls) == 2:
            raise RuntimeError("a driver of its own mind")
        return chip.read()

    with Meter(Power(cpu=Counter("RAPL", 0.05, read), busy=chip.busy)) as m, m.answer() as account:
        for _ in range(6):
            spin(0.05)
            m.settle()
    assert account.ended
    assert m.total > 0


def test_children_are_counted_while_they_run_and_once() -> None:
    code = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass"
    with Meter(Power(children=True)) as m:
        child = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.6)
        m.settle()
        during = m.unattributed.modelled
        child.wait()
        m.settle()
        after = m.unattributed.modelled
    watts = computer_kind().core.value or 0.0
    assert during > 0
    assert after / 1e9 == pytest.approx(1.05 * watts, rel=0.3)


def rapl_tree(root: Path, microjoules: int) -> Path:
    """A machine's powercap as Linux shows it: a package, its cores, its memory."""
    for zone, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
    ):
        (root / zone).mkdir(parents=True, exist_ok=True)
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "max_energy_range_uj").write_text("262143328850\n")
        (root / zone / "energy_uj").write_text(f"{microjoules}\n")
    return root


def test_rapl_is_read_from_packages_and_memory_alone(tmp_path: Path) -> None:
    counter = find_rapl([], rapl_tree(tmp_path, 1_000_000))
    assert counter is not None
    counter.start()
    rapl_tree(tmp_path, 1_500_000)
    assert counter.advance(10**9) == 2 * 500_000 * 1000  # the cores are within the package
    rapl_tree(tmp_path, 100)
    (tmp_path / "intel-rapl:0/energy_uj").write_text("no number")
    assert counter.advance(10**9) is None


def test_a_meter_over_rapl_is_within_its_counter(tmp_path: Path) -> None:
    counter = find_rapl([], rapl_tree(tmp_path, 0))
    with Meter(Power(cpu=counter)) as m:
        with m.answer() as account:
            spin(0.05)
            rapl_tree(tmp_path, 1_000_000)
        m.settle()
    assert m.total == 2 * 10**9  # of the package and of the memory, to the nanojoule
    assert "RAPL" in m.joules(account.taken).source


def test_rapl_that_may_not_be_read_says_the_one_command(tmp_path: Path, monkeypatch) -> None:
    rapl_tree(tmp_path, 1)
    text = Path.read_text

    def closed(path: Path, *given, **named) -> str:  # root may read anything, so no chmod shows it
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return text(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", closed)
    notes: list[str] = []
    assert find_rapl(notes, tmp_path) is None
    [note] = notes
    assert "sudo chmod a+r" in note


def test_no_rapl_is_nothing_to_speak_of(tmp_path: Path) -> None:
    notes: list[str] = []
    assert find_rapl(notes, tmp_path) is None
    assert notes == []


def test_boundaries_lie_within_each_other() -> None:
    with meter() as m, m.answer() as account:
        spin(0.02)
    found = m.boundaries(account.taken)
    for inner, outer in ((found.chip, found.computer), (found.computer, found.facility)):
        assert inner.value is not None
        assert outer.value is not None
        assert (inner.low, inner.value, inner.high) <= (outer.low, outer.value, outer.high)
    assert found.chip.kind == "modelled"
    assert found.facility.kind == "assumed"
    assert "PUE" in found.facility.source
