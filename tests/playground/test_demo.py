"""The playground: what it draws, what it refuses in one line, and its page as people use it."""

import base64
import http.client
import json
import threading
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reports.browsing import DESK, PHONE, tab, until
from umm_bench import demo
from umm_bench.base import load_base, usual
from umm_bench.errors import UserError
from umm_bench.playground import studio
from umm_bench.playground.server import Server
from umm_bench.playground.studio import Studio, as_png
from umm_bench.suites.mini import MiniSuite
from umm_bench.umm import Subject
from umm_bench.umm_method import load_umm

PROMPT = "a {subject} on a blue background"


@pytest.fixture(scope="module")
def made():
    return Studio(load_umm(load_base("mini"), ""), MiniSuite().subjects(), usual("mini"))


@pytest.fixture(scope="module")
def known(made):
    return next(iter(made.known.values()))


@pytest.fixture(scope="module")
def served(made):
    with Server(made, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def post(server, path, body, headers=None):
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def test_both_pictures_are_those_of_the_pipeline_from_one_noise(made, known):
    drawn = made.draw({"subjects": [{"suite": known.id, "alpha": "0.6"}], "prompt": PROMPT, "steps": 3, "seed": "7"})
    text = f"a {known.class_noun} on a blue background"

    def pictured(**asked):
        generator = torch.Generator("cpu").manual_seed(7)
        return made.pipe(
            text, num_inference_steps=3, guidance_scale=3.0, subject_guidance_scale=6.0, generator=generator, **asked
        ).images[0]

    assert drawn.prompt == text
    assert np.array_equal(drawn.plain, pictured())
    assert np.array_equal(drawn.umm, pictured(subjects=Subject(known.references[0], known.class_noun, 0.6)))
    assert not np.array_equal(drawn.plain, drawn.umm)


def test_alpha_0_is_plain_and_two_of_one_class_have_their_own_places(made, known):
    other = Image.effect_noise((64, 64), 90).convert("RGB")
    content = BytesIO()
    other.save(content, "PNG")
    both = [{"suite": known.id, "words": "dog"}, {"picture": encoded(content.getvalue()), "words": "dog"}]
    asked = {"subjects": both, "prompt": "a {subject_1} next to a {subject_2}", "steps": 2}
    drawn = made.draw(asked)
    turned = made.draw({**asked, "prompt": "a {subject_2} next to a {subject_1}"})
    assert drawn.prompt == turned.prompt == "a dog next to a dog"
    assert not np.array_equal(drawn.umm, turned.umm)
    still = made.draw({**asked, "subjects": [{**each, "alpha": 0} for each in both]})
    assert np.abs(np.asarray(still.umm, int) - np.asarray(still.plain, int)).max() <= 1


def test_a_card_that_is_saved_draws_what_its_picture_drew(made, known):
    name, content = made.card({"subjects": [{"suite": known.id, "words": "a blue dog"}]})
    assert name == "a-blue-dog.safetensors"
    asked = {"prompt": "{subject} on a beach", "steps": 2}
    from_card = made.draw({**asked, "subjects": [{"card": encoded(content)}]})
    from_picture = made.draw({**asked, "subjects": [{"suite": known.id, "words": "a blue dog"}]})
    assert from_card.prompt == "a blue dog on a beach"
    assert np.abs(np.asarray(from_card.umm, int) - np.asarray(from_picture.umm, int)).max() <= 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "a dog"}, r"the prompt must hold \{subject\} once"),
        ({"prompt": " "}, "write the prompt: nothing is there"),
        ({"prompt": "a {subject} " + "very " * 200}, "the prompt has .* tokens, this base reads"),
        ({"prompt": "many {subject}s"}, "is a part of other words"),
        ({"subjects": []}, "choose one subject, or two"),
        ({"subjects": [{}] * 3}, "there are 3"),
        ({"subjects": [{"suite": "nobody"}]}, "subject 1 has no picture"),
        ({"subjects": ["dog"]}, "subject 1 says nothing"),
        ({"subjects": [{"picture": "no base 64", "words": "dog"}]}, "did not arrive whole"),
        ({"subjects": [{"picture": encoded(b"no picture"), "words": "dog"}]}, "cannot be read as an image"),
        ({"subjects": [{"card": encoded(b"\x80\x04pickled")}]}, "the card of subject 1 is pickled"),
        ({"steps": "0"}, "steps must be at least 1"),
        ({"steps": 10**6}, "steps must be at most"),
        ({"seed": "-1"}, "seed must be at least 0"),
        ({"guidance": "nan"}, "guidance must be a finite number"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(made, known, change, says):
    with pytest.raises(UserError, match=says) as raised:
        made.draw({"subjects": [{"suite": known.id}], "prompt": PROMPT, "steps": 1, **change})
    assert "\n" not in str(raised.value)


def test_alpha_and_words_are_checked_for_each_subject(made, known):
    for subject, says in (
        ({"suite": known.id, "alpha": 1.5}, "alpha must be at most 1"),
        ({"suite": known.id, "words": "\udc80"}, "the words of subject 1 must be text"),
        ({"picture": as_png(Image.new("RGB", (8, 8))).partition(",")[2]}, "write the words of subject 1"),
    ):
        with pytest.raises(UserError, match=says):
            made.draw({"subjects": [subject], "prompt": PROMPT})


def test_an_upload_is_bounded_before_it_is_read(made, served, monkeypatch):
    monkeypatch.setattr(studio, "UPLOAD_BYTES", 30)
    with pytest.raises(UserError, match="is larger than"):
        made.draw({"subjects": [{"picture": "A" * 100, "words": "dog"}], "prompt": PROMPT})
    connection = http.client.HTTPConnection(*served.server_address[:2], timeout=60)
    connection.putrequest("POST", "/draw")
    connection.putheader("Content-Length", str(10**11))
    connection.endheaders()
    answer = connection.getresponse()  # though nothing of it was sent
    assert answer.status == 400 and "MB" in json.loads(answer.read())["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_question_that_is_none_gets_a_line(served, body):
    status, content, _ = post(served, "/draw", body)
    assert status == 400 and "JSON" in json.loads(content)["error"]


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_other_pages_get_nothing(served, headers):
    status, content, _ = post(served, "/draw", {}, headers)
    assert status == 403 and "only http://127.0.0.1" in json.loads(content)["error"]


def test_what_is_not_there_is_said_so(served, known):
    for path, status in ((f"/subject/{known.id}", 200), ("/subject/..%2F..%2Fsetup", 404), ("/etc/passwd", 404)):
        connection = http.client.HTTPConnection(*served.server_address[:2], timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == status, path
        content = answer.read()
        assert content == known.references[0].read_bytes() if status == 200 else b"nothing here" in content
    assert post(served, "/elsewhere", {})[0] == 400


def test_a_port_that_is_taken_is_one_line(served, made, capsys):
    with pytest.raises(UserError, match=r"cannot listen on port .* give another --port"):
        Server(made, served.server_address[1])
    assert demo.main(["--port", "70000"]) == 2
    assert "--port must be at most 65535" in capsys.readouterr().err


def opened(seen, served):
    page = seen.page
    page.goto(served.address)
    page.eval_on_selector("[name=steps]", "range => { range.value = 2; range.dispatchEvent(new Event('input')); }")
    return page


def own(seen, served) -> list[str]:
    return [said for said in seen.complaints if not said.startswith(f"asked: {served.address}")]


def test_the_page_draws_and_shows_errors_as_a_line(browser, served):
    with tab(browser) as seen:
        page = opened(seen, served)
        page.click("#draw")
        until(page, "!document.getElementById('drawn').hidden")
        for name in ("plain", "umm"):
            until(page, f"document.getElementById('{name}').naturalWidth === 64")
        assert page.inner_text("#wrong") == ""
        assert own(seen, served) == []
        page.fill("[name=prompt]", "nothing of it <b>here</b>")
        page.click("#draw")
        until(page, "document.getElementById('wrong').textContent !== ''")
        assert page.inner_text("#wrong").startswith("the prompt must hold {subject} once")
        assert all("status of 400" in said for said in own(seen, served))  # the console's note of the answer


def test_two_subjects_an_upload_and_a_card_from_page_to_page(browser, served, known, tmp_path):
    with tab(browser) as seen:
        page = opened(seen, served)
        page.set_input_files("[data-subject='1'] [name=file]", str(known.references[0]))
        until(page, "document.querySelector('[data-subject=\"1\"] [name=suite]').value === ''")
        page.fill("[data-subject='1'] [name=words]", "blue dog")
        with page.expect_download() as download:
            page.click("[data-subject='1'] .save")
        card = tmp_path / download.value.suggested_filename
        download.value.save_as(card)
        assert card.name == "blue-dog.safetensors"
        page.check("#two")
        assert page.input_value("[name=prompt]") == "a {subject_1} next to a {subject_2}"
        page.set_input_files("[data-subject='2'] [name=file]", str(card))
        until(page, "document.querySelector('[data-subject=\"2\"] [name=suite]').value === ''")
        page.click("#draw")
        until(page, "!document.getElementById('drawn').hidden")
        assert page.get_attribute("#umm", "alt") == "UMM: a blue dog next to a blue dog"
        assert own(seen, served) == []


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_the_page_fits_and_is_for_everyone(browser, served, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `dev`)")
    with tab(browser, viewport, scheme) as seen:
        page = opened(seen, served)
        page.check("#two")
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(over) == 0
        found = axe.Axe().run(page).response["violations"]
        assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []
