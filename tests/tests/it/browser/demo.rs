//! The demonstration in `deploy/demo`: two windows talk through the relay, which sees nothing of
//! what they say.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::chromium::Page;
use super::{LISTED_HOST, NO_RATES, Stage, script};

/// What a person does with the page: waits for something, and fills in forms.
pub(super) const HANDS: &str = r#"
    globalThis.until = async (what, isSo) => {
        for (let turn = 0; turn < 1000; turn++) {
            if (isSo()) return true;
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
        throw new Error(`${what}: ${document.querySelector("main").innerText}`);
    };
    globalThis.submit = (form, input, text) => {
        if (input) document.getElementById(input).value = text;
        document.getElementById(form).requestSubmit();
        return true;
    };
    globalThis.isShown = (section) => until(section, () => !document.getElementById(section).hidden);
    globalThis.isSaid = (text) => until(text, () => document.getElementById("log").innerText.includes(text));
    globalThis.textOf = (id) => document.getElementById(id).innerText;
    0
"#;

/// The size of a window in docs/demo.png.
const WINDOW_PX: u32 = 400;
const HEIGHT_PX: u32 = 680;

/// Opens the demonstration in a window of its own.
fn open<'a>(stage: &'a Stage, rest: &str) -> Page<'a> {
    let page = stage.browser.open(&format!("{}/demo/{rest}", stage.pages.origin(LISTED_HOST)));
    page.run(HANDS);
    page
}

/// A window that has made its keys and shows its link, and the fragment of that.
fn inviting(stage: &Stage) -> (Page<'_>, String) {
    let page = open(stage, &format!("?relay={}", stage.relay_url()));
    page.run("isShown('setup').then(() => submit('setup-form'))");
    page.run("isShown('invite')");
    let link = page.run("document.getElementById('link').value");
    let (_, fragment) = link.as_str().unwrap().split_once('#').unwrap();
    let fragment = format!("#{fragment}");
    (page, fragment)
}

/// A window that has followed a link.
fn joining<'a>(stage: &'a Stage, fragment: &str) -> Page<'a> {
    let page = open(stage, fragment);
    page.run("isShown('setup').then(() => submit('setup-form'))");
    page.run("isShown('chat')");
    page
}

fn say(page: &Page<'_>, text: &str) {
    page.run(&script("submit", &["send-form".into(), "message".into(), text.into()]));
}

fn hear(page: &Page<'_>, text: &str) {
    page.run(&script("isSaid", &[text.into()]));
}

#[test]
fn two_windows_talk() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let (first, fragment) = inviting(&stage);
    let second = joining(&stage, &fragment);
    first.run("isShown('chat')");
    assert_eq!(first.run("textOf('safety')"), second.run("textOf('safety')"));
    assert_eq!(second.run("location.hash"), "", "the link is not kept");
    let answer = "No, only the two of us can.";
    for (from, to, text) in [(&second, &first, "Hello! Can the relay read this?"), (&first, &second, answer)]
    {
        say(from, text);
        hear(to, &format!("Other: {text}"));
        hear(from, "stored by the relay");
    }
    if is_picture_wanted() {
        picture(&stage, [&first, &second]);
    }
    for number in 0..5 {
        say(&first, &format!("<b>{number}</b>"));
    }
    hear(&second, "<b>4</b>");
    let lines =
        second.run("[...document.querySelectorAll('#log li:not(.own)')].map((line) => line.innerText)");
    let said = [answer, "<b>0</b>", "<b>1</b>", "<b>2</b>", "<b>3</b>", "<b>4</b>"];
    assert_eq!(lines, json!(said.map(|text| format!("Other: {text}"))));
    for page in [&first, &second] {
        assert_eq!(page.run("textOf('error')"), "");
    }
}

/// Each window can also get the link of the other by hand.
#[test]
fn links_can_be_pasted() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let ((first, _), (second, fragment)) = (inviting(&stage), inviting(&stage));
    let paste = |link: &str| script("submit", &["paste-form".into(), "pasted".into(), link.into()]);
    first.run(&paste("no link"));
    first.run("until('error', () => textOf('error').includes('not a link of this page'))");
    first.run(&paste(&fragment));
    for page in [&first, &second] {
        page.run("isShown('chat')");
    }
    say(&first, "hello");
    hear(&second, "Other: hello");
}

/// Who follows the same link later is not taken for the one who came first.
#[test]
fn a_third_window_is_not_heard() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let (first, fragment) = inviting(&stage);
    let second = joining(&stage, &fragment);
    first.run("isShown('chat')");
    let third = joining(&stage, &fragment);
    say(&third, "from the third");
    first.run("until('status', () => textOf('status').includes('Somebody else'))");
    say(&second, "from the second");
    hear(&first, "Other: from the second");
    assert_eq!(first.run("textOf('log').includes('third')"), false);
}

#[test]
fn a_relay_that_does_not_list_the_page_is_an_error() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let (_, fragment) = inviting(&stage);
    let page = stage.browser.open(&format!("{}/demo/{fragment}", stage.pages.origin("foreign.localhost")));
    page.run(HANDS);
    page.run("isShown('setup').then(() => submit('setup-form'))");
    page.run("until('error', () => textOf('error').includes('foreign.localhost'))");
    assert_eq!(page.run("textOf('error').includes('cors.allowed_origins')"), true);
    assert_eq!(page.run("document.getElementById('chat').hidden"), true);
}

/// Whether the pictures in docs are to be written anew.
pub(super) fn is_picture_wanted() -> bool {
    #[expect(clippy::disallowed_methods, reason = "who runs the tests asks for a picture by a variable")]
    let wanted = std::env::var_os("UPDATE_SCREENSHOTS");
    wanted.is_some()
}

/// Writes docs/demo.png, with the windows side by side.
fn picture(stage: &Stage, windows: [&Page<'_>; 2]) {
    let shots = windows.map(|window| {
        window.resize(WINDOW_PX, HEIGHT_PX);
        window.run("document.querySelector('details').open = false; scrollTo(0, 0)");
        window.screenshot()
    });
    let show = r"(...shots) => {
        document.body.style.cssText = 'margin: 0; padding: 8px; display: flex; gap: 8px; background: #6b7480';
        const images = shots.map((shot) => Object.assign(new Image(), { src: `data:image/png;base64,${shot}` }));
        document.body.replaceChildren(...images);
        return Promise.all(images.map((image) => image.decode())).then(() => images.length);
    }";
    let page = stage.listed_page();
    page.run(&script(&format!("({show})"), &shots.map(Into::into)));
    page.resize(2 * WINDOW_PX + 24, HEIGHT_PX + 16);
    let shot = page.screenshot();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/demo.png");
    std::fs::write(path, BASE64_STANDARD.decode(shot).unwrap()).unwrap();
}
