"""Pictures on the page, in a real browser against a real server with a random model that sees."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from chromium import all_of, click, emulated, one, open_page, send, settings, until
from seeing_engine import picture, png, write_seeing_engine
from servers import serving_with

# Hands files over as a mouse or a keyboard would: [[name, type, base64]...].
HAND_OVER = """
    const [kind, files] = arguments;
    const data = new DataTransfer();
    for (const [name, type, text] of files) {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        data.items.add(new File([bytes], name, { type }));
    }
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    return !document.getElementById("text").dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    directory = write_seeing_engine(tmp_path_factory.mktemp("seeing"))
    with serving_with(served=str(directory), model="seeing", max_images=3) as (_, port):
        yield port


@pytest.fixture
def page(chrome, port):
    chrome.get_log("browser")
    open_page(chrome, port, model="seeing")
    settings(chrome, seed="3", max_tokens="8")
    yield chrome
    errors = [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in errors if "status of 4" not in entry["message"]]


def hand_over(page, kind, *files):
    given = [[name, type_, base64.b64encode(data).decode()] for name, type_, data in files]
    return page.execute_script(HAND_OVER, kind, given)


def thumbs(page):
    return page.execute_script("""return [...document.querySelectorAll("#pictures img")].map((image) => image.alt);""")


def note(page):
    return one(page, "#pictures-note").text


def asked(page):
    """The messages of the requests that the page has made since this was last asked."""
    page.execute_script("""
        if (window.asked) return;
        window.asked = [];
        const real = window.fetch;
        window.fetch = (path, options) => {
            if (options?.body) window.asked.push(JSON.parse(options.body));
            return real(path, options);
        };
    """)
    return page.execute_script("return window.asked.splice(0)")


def test_dropped_pasted_and_chosen_pictures_are_seen_and_sent(page, tmp_path):
    asked(page)
    assert hand_over(page, "dragover", ("a.png", "image/png", b""))
    assert one(page, "#ask.over")
    assert hand_over(page, "drop", ("a.png", "image/png", png(picture())))
    until(page, lambda: thumbs(page) == ["a.png"])
    assert not all_of(page, "#ask.over")
    assert hand_over(page, "paste", ("b.png", "image/png", png(picture(seed=5))))
    until(page, lambda: thumbs(page) == ["a.png", "b.png"])
    (tmp_path / "c.jpg").write_bytes(b"")
    Image.fromarray(picture(50, 120)).save(tmp_path / "c.jpg")
    one(page, "#picture-files").send_keys(str(tmp_path / "c.jpg"))
    until(page, lambda: thumbs(page) == ["a.png", "b.png", "c.jpg"])
    click(page, "#pictures button", 1)
    assert thumbs(page) == ["a.png", "c.jpg"]
    send(page, "what is it?")
    assert thumbs(page) == []
    until(page, lambda: all_of(page, ".reply > .numbers"))
    assert [image.get_attribute("alt") for image in all_of(page, ".user img")] == ["a.png", "c.jpg"]
    [body] = asked(page)
    *shown, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "what is it?"}
    # As they are: no byte of them is changed.
    assert shown[0]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(png(picture())).decode()}"
    assert shown[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    # The next turn shows them again, and a picture may go alone.
    hand_over(page, "paste", ("d.png", "image/png", png(picture(seed=7))))
    until(page, lambda: thumbs(page) == ["d.png"])
    click(page, "#send")
    until(page, lambda: len(all_of(page, ".reply > .numbers")) == 2)
    [body] = asked(page)
    assert [len(message["content"]) for message in body["messages"] if message["role"] == "user"] == [3, 1]


def test_a_conversation_with_pictures_is_kept(page):
    hand_over(page, "drop", ("a.png", "image/png", png(picture())))
    until(page, lambda: thumbs(page) == ["a.png"])
    click(page, "#send")
    until(page, lambda: all_of(page, ".reply > .numbers"))
    page.refresh()
    until(page, lambda: page.find_element(By.ID, "model").text == "seeing")
    click(page, "#open-history")
    title = until(page, lambda: all_of(page, "#conversations .title"))[0]
    assert title.text == "a.png"
    title.click()
    assert [image.get_attribute("alt") for image in all_of(page, ".user img")] == ["a.png"]


def test_a_photograph_of_40_mb_is_scaled_with_a_word(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    assert (tmp_path / "large.png").stat().st_size > 40e6
    asked(page)
    one(page, "#picture-files").send_keys(str(tmp_path / "large.png"))
    until(page, lambda: thumbs(page) == ["large.png"], 60)
    assert one(page, "#pictures small").text.startswith("scaled to ")
    send(page, "what?")
    until(page, lambda: all_of(page, ".reply > .numbers"), 60)
    [body] = asked(page)
    assert len(body["messages"][0]["content"][0]["image_url"]["url"]) < 2e6


def test_what_is_no_picture_is_told(page):
    hand_over(page, "drop", ("a.txt", "text/plain", b"text"))
    until(page, lambda: note(page) == "a.txt is no PNG, JPEG, WebP or GIF.")
    hand_over(page, "drop", ("b.png", "image/png", b"no picture"))
    until(page, lambda: note(page) == "b.png cannot be read as a picture.")
    hand_over(page, "drop", *[(f"{n}.png", "image/png", png(picture(seed=n))) for n in range(4)])
    until(page, lambda: note(page) == "At most 3 pictures go with a message.")
    assert thumbs(page) == ["0.png", "1.png", "2.png"]
    click(page, "#new")
    assert thumbs(page) == []


def test_pictures_on_a_small_screen(page):
    with emulated(page, width=390, height=844):
        hand_over(page, "drop", *[(f"{n}.png", "image/png", png(picture(60, 400, n))) for n in range(3)])
        until(page, lambda: len(thumbs(page)) == 3)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        click(page, "#send")
        until(page, lambda: all_of(page, ".reply > .numbers"))
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        for image in all_of(page, ".user img"):
            assert image.size["width"] <= 390
        assert one(page, "#send").is_displayed()


def test_a_model_that_does_not_see_says_so(chrome, page_port):
    open_page(chrome, page_port)
    assert not one(chrome, "#add-picture").is_displayed()
    assert hand_over(chrome, "drop", ("a.png", "image/png", png(picture())))
    until(chrome, lambda: note(chrome) == "This model takes no pictures.")
    assert thumbs(chrome) == []
