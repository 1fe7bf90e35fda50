"""The panels' engine: the newest request only, nothing left running, problems in words."""

import asyncio
import threading

import ipywidgets
import pytest
import torch
from PIL import Image

from helpers.widgets import live, pieces
from helpers.widgets.live import Latest, Panel


async def ended(*panels):
    """Wait until nothing is running, however busy the machine."""
    while any(panel._latest.running for panel in panels):
        await asyncio.sleep(0.005)


class Counting(Panel):
    """Counts to `n`, a number a slice, and keeps a diary."""

    def __init__(self, **more):
        self.n = ipywidgets.IntSlider(description="n", value=3, max=1_000)
        self.asked_by_hand = ipywidgets.Text(description="quiet")
        self.shown = ipywidgets.HTML()
        self.begun, self.closed = [], []
        super().__init__(
            "Counting",
            [ipywidgets.HBox([self.n]), self.asked_by_hand],
            [self.shown],
            quiet=[self.asked_by_hand],
            **more,
        )

    def work(self):
        n = self.n.value
        self.begun.append(n)
        try:
            if n == 13:
                raise ValueError("thirteen is <unlucky>")
            if n == 14:
                raise KeyError("a bug")
            for i in range(n):
                self.shown.value = str(i + 1)
                yield (i + 1) / n
        finally:
            self.closed.append(n)


def test_without_an_event_loop_a_movement_is_answered_when_it_returns():
    panel = Counting()
    assert panel.shown.value == "3" and "Ready" in panel.status.value
    panel.n.value = 7  # in a box among the controls
    assert panel.shown.value == "7"
    panel.asked_by_hand.value = "something"
    assert panel.begun == [3, 7] == panel.closed


def test_a_movement_drops_the_work_before_it_and_closes_its_generator():
    async def room():
        panel = Counting()
        panel.n.value = 1_000
        await asyncio.sleep(0.06)  # the pause is over and some slices are done
        assert panel.begun[-1] == 1_000 and 1_000 not in panel.closed
        panel.n.value = 5
        assert panel.closed[-1] == 1_000  # at once, not when somebody collects garbage
        await ended(panel)
        return panel

    panel = asyncio.run(room())
    assert panel.shown.value == "5" and "Ready" in panel.status.value
    assert not panel._latest.running


def test_of_many_movements_in_one_pause_only_the_last_is_worked_on():
    async def room():
        panel = Counting()
        for n in range(100, 140):
            panel.n.value = n
        assert "Working" in panel.status.value  # said before anything is computed
        assert not panel._stop.disabled
        await ended(panel)
        return panel

    panel = asyncio.run(room())
    assert panel.begun == [3, 139] and panel.shown.value == "139"


def test_the_first_slice_is_there_when_the_panel_appears():
    async def room():
        panel = Counting()
        return panel.shown.value

    assert asyncio.run(room()) == "1"


def test_stop_keeps_what_is_shown_and_says_so():
    async def room():
        panel = Counting(stoppable=True)
        await asyncio.sleep(0.05)
        assert panel._stop.disabled  # nothing to stop
        panel.n.value = 1_000
        await asyncio.sleep(0.06)
        assert not panel._stop.disabled and "progress" in panel.status.value
        panel._stop.click()
        shown = panel.shown.value
        await asyncio.sleep(0.05)
        return panel, shown

    panel, shown = asyncio.run(room())
    assert panel.shown.value == shown != "1000" and int(shown) >= 1
    assert "Stopped" in panel.status.value and panel._stop.disabled
    panel.stop()  # nothing runs: nothing is said
    assert "Stopped" in panel.status.value


def test_a_problem_is_said_and_the_next_movement_works():
    panel = Counting()
    panel.n.value = 13
    assert 'role="alert"' in panel.status.value and "&lt;unlucky&gt;" in panel.status.value
    with pytest.raises(KeyError):  # not the reader's doing: it also reaches the log
        panel.n.value = 14
    assert "a bug" in panel.status.value
    panel.n.value = 2
    assert panel.shown.value == "2" and "alert" not in panel.status.value


def test_panels_do_not_share_work():
    async def room():
        panels = [Counting() for _ in range(3)]
        for k, panel in enumerate(panels):
            panel.n.value = 20 + k
        await ended(*panels)
        return [panel.shown.value for panel in panels]

    assert asyncio.run(room()) == ["20", "21", "22"]


def test_closing_ends_the_work_and_leaves_no_task_thread_or_widget():
    async def room():
        before, threads = len(asyncio.all_tasks()), threading.active_count()
        panel = Counting()
        panel.n.value = 1_000
        await asyncio.sleep(0.06)
        panel.close()
        await asyncio.sleep(0.01)
        assert panel.closed[-1] == 1_000
        assert len(asyncio.all_tasks()) == before and threading.active_count() == threads
        assert panel.n.comm is None and panel.status.comm is None and panel.comm is None

    asyncio.run(room())


def test_a_panel_on_paper_says_how_to_get_it():
    assert repr(Counting()) == "Counting: run this cell to play with it."


def test_latest_runs_again_after_a_stop():
    said, done = [], []
    latest = Latest(lambda what, share=None, problem=False: said.append(what))

    def work():
        done.append(1)
        yield None

    latest.ask(work)
    latest.stop()
    latest.ask(work)
    assert done == [1, 1] and said.count("ready") == 2 and "stopped" not in said


def test_pictures_are_chosen_by_clicking_and_start_anew_with_others():
    red, blue = torch.zeros(3, 4, 4), Image.new("RGB", (5, 3), "blue")
    offer, seen = pieces.Pictures([red, blue], ["red", "blue"]), []
    offer.observe(lambda change: seen.append(change["new"]), "value")
    first, second = offer.children[1:]
    second.click()
    assert offer.value == 1 and seen == [1]
    assert second.icon == "check" and not first.icon  # not by its colour alone
    offer.show([blue], ["only"])
    assert offer.value == 0 and first.description == "only"
    assert offer.children[1:] == (first,) and second.comm is not None  # kept for the next time
    offer.show([blue, red, red], ["x", "y", "z"])
    offer.children[3].click()
    assert offer.value == 2 and offer.children[1:3] == (first, second)
    offer.close()
    assert first.comm is None and second.comm is None
    with pytest.raises(ValueError, match="1 names for 2 pictures"):
        offer.show([red, blue], ["one"])
    with pytest.raises(ValueError, match="0 pictures"):
        pieces.Pictures([], [])


def test_the_true_class_is_in_the_list_even_if_improbable():
    shares = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.04, "e": 0.01}
    html = pieces.probabilities("What it says", shares, most=3, mark="e")
    assert "<strong>1%</strong>" in html and "50%" in html and "15%" not in html


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_picture_has_the_same_bytes_from_floats_and_from_uint8(dtype):
    bright = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    shown = bright if dtype == torch.uint8 else bright / 255
    html = pieces.picture(shown, 'a "white" <square>', caption="white")
    assert pieces.picture(bright, 'a "white" <square>', caption="white") == html
    assert 'alt="a &quot;white&quot; &lt;square&gt;"' in html


def test_a_slice_has_one_thread_and_gives_the_others_back():
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)

    def work():
        seen.append(torch.get_num_threads())
        yield None
        seen.append(torch.get_num_threads())
        raise ValueError("and also after a problem")

    try:
        Latest(lambda what, share=None, problem=False: None).ask(work)
        assert seen == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_the_page_says_is_handled_on_the_panels_own_loop():
    """JupyterLab has another thread read it."""
    handled = []

    async def room():
        panel = Counting(stoppable=True)
        offer = pieces.Pictures([torch.zeros(3, 2, 2)] * 2, ["a", "b"])
        offer.show([torch.zeros(3, 2, 2)] * 2, ["c", "d"])  # buttons made later
        panel.n.observe(lambda _: handled.append(threading.current_thread()), "value")
        offer.observe(lambda _: handled.append(threading.current_thread()), "value")
        moved = {"method": "update", "state": {"value": 5}, "buffer_paths": []}
        clicked = {"method": "custom", "content": {"event": "click"}}

        def page():
            panel.n.comm.handle_msg({"content": {"data": moved}, "buffers": []})
            offer._buttons[1].comm.handle_msg({"content": {"data": clicked}, "buffers": []})

        await asyncio.to_thread(page)
        while len(handled) < 2:
            await asyncio.sleep(0.005)
        await ended(panel)
        return panel, offer

    panel, offer = asyncio.run(room())
    assert panel.shown.value == "5" and offer.value == 1
    assert handled == [threading.main_thread()] * 2


def test_a_closed_panel_does_no_more():
    panel = Counting()
    panel.close()
    panel.n.value = 9
    assert panel.begun == [3] and panel.shown.value == "3"


def test_a_bug_reaches_the_log_at_once():
    async def room():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        panel = Counting()
        await ended(panel)
        panel.n.value = 14
        await ended(panel)
        await asyncio.sleep(0)
        return told, panel.status.value

    told, said = asyncio.run(room())
    assert isinstance(told[0]["exception"], KeyError) and "a bug" in said


def test_a_cell_that_is_run_again_closes_its_former_panels(monkeypatch):
    class Shell:
        run = "first"

        def get_parent(self):
            return {"metadata": {"cellId": "here"}, "header": {"msg_id": self.run}}

    shell = Shell()
    monkeypatch.setattr(live, "get_ipython", lambda: shell)
    both = [Counting(), Counting()]  # of one run: they stay
    assert all(panel.comm is not None for panel in both)
    shell.run = "second"
    again = Counting()
    assert all(panel.comm is None for panel in both) and again.comm is not None
