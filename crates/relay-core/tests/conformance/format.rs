//! The text format of scenarios. Errors show the file, the line and the expected text.

use relay_core::testing::Scenario;

use crate::stores::InMemory;

#[test]
fn a_syntax_error_shows_its_line() {
    let check = |line: &str, expected: &str| {
        let text = format!("# A title.\n\npush alice m1/0 1B -> stored 1/1B\n{line}\n");
        let failure = Scenario::parse("some.txt", &text).unwrap_err().to_string();
        assert_eq!(failure, format!("some.txt:4: {expected}"), "{line}");
    };
    let end = "found the end of the command";
    check("limits items=3", "expected limits only before all other commands");
    check(
        "shove alice",
        "expected limits, push, pull, ack, purge, sweep, advance, clock, reopen, set or verify, found shove",
    );
    check("-> stored 1/1B", &format!("expected a command, {end}"));
    check("push", &format!("expected a recipient, {end}"));
    check("push alice", &format!("expected an item such as m1/0 or m1/0of3, {end}"));
    check("push alice m1 1B -> stored 1/1B", "expected an item such as m1/0, found m1");
    check("push alice m1/x 1B -> stored 1/1B", "expected a number, found \"x\"");
    check("push alice m1/0 -> stored 1/1B", &format!("expected a payload such as 10B or 10B:x, {end}"));
    check("push alice m1/0 10 -> stored 1/1B", "expected a payload such as 10B, found 10");
    check("push alice m1/0 1B twice -> stored 1/1B", "expected ttl, found twice");
    check("push alice m1/0 1B ttl -> stored 1/1B", &format!("expected a duration such as 5s, {end}"));
    check("push alice m1/0 1B ttl 5s 6s -> stored 1/1B", "expected the end of the command, found 6s");
    check("ack alice through c -> deleted 0", "no earlier line has: as c");
    check("purge -> deleted 0", &format!("expected a recipient, {end}"));
    check("push alice m1/0 1B", "expected -> and an answer");
    check("push alice m1/0 1B -> # stored", "expected -> and an answer");
    check("push alice m1/3of3 1B -> stored", "meta.chunk_index: must be less than chunk_count");
    check("push \" \" m1/0 1B -> stored 1/1B", "recipient: must not be empty or blank");
    check("push \"al m1/0 1B -> stored 1/1B", "expected a closing quote, found the end of the line");
    check("push \"\\x\" m1/0 1B -> stored", "expected \\\" \\\\ \\n \\t or \\u{..}, found Some('x')");
    check("push \"\\u{D800}\" m1/0 1B -> stored", "expected a character such as \\u{1F980}, found D800");
    check("pull alice max 0 -> (empty)", "expected a number, found \"0\"");
    check("pull alice after c -> (empty)", "no earlier line has: as c");
    check("pull alice before c -> (empty)", "expected after, max, as or times, found before");
    check("advance", &format!("expected a duration such as 15d, {end}"));
    check("advance 15", "expected a duration such as 15d or 1h30m, found \"15\"");
    check("advance 1y", "expected a duration such as 15d or 1h30m, found \"1y\"");
    check("advance d", "expected a duration such as 15d or 1h30m, found \"d\"");
    check("advance 1s -> done", "expected no ->, because this command has no answer");
    check("clock 2h", "expected a duration such as -2h, found 2h");
    check("reopen items", "expected a limit such as items=3, found items");
    check("reopen colour=3", "expected items, bytes, message, page, page_bytes, ttl or dedup, found colour");
    check("verify all", "expected the end of the command, found all");
}

#[test]
fn a_wrong_answer_shows_its_line() {
    let check = |text: &str, expected: &str| {
        let failure = Scenario::parse("some.txt", text).unwrap().run(&mut InMemory).unwrap_err().to_string();
        assert_eq!(failure, expected);
    };
    check(
        "push alice m1/0 1B   ->   stored   2/2B # not so\npull alice -> (empty)",
        "some.txt:1: push alice m1/0 1B   ->   stored   2/2B # not so\n  expected: stored 2/2B\n  got:      stored 1/1B",
    );
    check(
        "push a m1/0 1B -> stored 1/1B\n\npull a times -> m1/0@0s..1d",
        "some.txt:3: pull a times -> m1/0@0s..1d\n  expected: m1/0@0s..1d\n  got:      m1/0@0s..14d",
    );
    check(
        "pull a as c -> (empty)\npull a after c -> (empty)",
        "some.txt:2: pull a after c -> (empty)\n  expected: (empty)\n  got:      error: the page c had no cursor",
    );
}

#[test]
fn a_scenario_may_use_the_whole_format() {
    let text = r##"
        limits items=5 bytes=100        # more of them
        limits ttl=1h30m dedup=1s500ms
        push "a\"\\\n\t\u{1F980}"*2 m1/1 1B -> stored 1/1B
        push "->" m1/0of3 1B -> stored 1/1B
        push "# no comment" m1/0 1B:x -> stored 1/1B
        advance 1h29m59s999ms
        pull "->" times -> m1/0@0s..1h30m
        ack "->" m1/0 -> deleted 1 missing 0 remaining 0
        advance 1s499ms
        push "->" m1/0 1B -> duplicate 0/0B
        advance 1ms
        push "->" m1/0 1B -> stored 1/1B
        verify
    "##;
    Scenario::parse("some.txt", text).unwrap().run(&mut InMemory).unwrap();
}

/// Empty pages would never end.
#[test]
fn a_page_limit_of_zero_counts_as_one() {
    let text = "
        limits page=0 page_bytes=0
        push a m1/0 1B -> stored 1/1B
        push a m2/0 1B -> stored 2/2B
        pull a as c -> m1/0 | next remaining 1
        pull a after c -> m2/0
    ";
    Scenario::parse("some.txt", text).unwrap().run(&mut InMemory).unwrap();
}
