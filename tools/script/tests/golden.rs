//! Golden order scripts: each `tests/scripts/NAME.jsonl` gives exactly `NAME.out.jsonl`.
//! `UPDATE_GOLDEN=1` writes the results anew; look at the difference before you keep it.

use std::fs;
use std::path::Path;

fn run(script: &str) -> Result<String, grid_script::ScriptError> {
    let mut out = Vec::new();
    grid_script::run(script.as_bytes(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn golden_scripts_give_their_golden_results() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.to_str().unwrap().ends_with(".jsonl") && !path.to_str().unwrap().ends_with(".out.jsonl")
        })
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        let found = run(&fs::read_to_string(&script).unwrap()).unwrap();
        let golden = script.with_extension("out.jsonl");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap();
        for (at, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{} case {}", script.display(), at + 1);
        }
        assert_eq!(found.lines().count(), expected.lines().count(), "{}", script.display());
    }
}

#[test]
fn ids_and_owners_are_echoed_in_the_form_given() {
    let script = r#"
        {"case":7}
        {"op":"limit","id":1,"owner":"ann","side":"sell","price":10,"qty":1}
        {"op":"limit","id":"1","owner":2,"side":"buy","price":10,"qty":1}
        {"op":"cancel","id":-3,"owner":2}
    "#;
    assert_eq!(
        run(script).unwrap(),
        concat!(
            r#"{"case":7,"trades":[{"taker":"1","maker":1,"price":10,"qty":1}],"bids":[],"asks":[],"#,
            r#""rejected":[-3],"expired":[],"stp_cancelled":[]}"#,
            "\n"
        )
    );
}

#[test]
fn lines_before_any_case_belong_to_a_case_named_null() {
    let script = r#"{"op":"limit","id":1,"owner":1,"side":"buy","price":3,"qty":2}"#;
    let expected = r#"{"case":null,"trades":[],"bids":[[3,2,1]],"asks":[],"rejected":[],"expired":[],"stp_cancelled":[]}"#;
    assert_eq!(run(script).unwrap().trim_end(), expected);
    assert_eq!(run("\n\n").unwrap(), "");
}

#[test]
fn a_line_that_is_not_understood_is_named_by_its_number_after_the_cases_before_it() {
    let table = [
        (r#"nonsense"#, "expected a JSON object"),
        (r#"[1]"#, "expected a JSON object"),
        (r#"{"op":"limit""#, "EOF"),
        (r#"{"op":"limit"} trailing"#, "trailing characters"),
        (r#"{}"#, "neither `case` nor `op`"),
        (r#"{"case":null}"#, "neither `case` nor `op`"),
        (r#"{"case":[1]}"#, "`case` is a name"),
        (r#"{"case":"a","op":"cancel"}"#, "lines of their own"),
        (r#"{"op":"stop","id":1,"owner":1}"#, "unknown op `stop`"),
        (r#"{"op":"cancel","owner":1}"#, "`id` is missing"),
        (r#"{"op":"cancel","id":1}"#, "`owner` is missing"),
        (r#"{"op":"cancel","id":1.5,"owner":1}"#, "an integer or a string"),
        (r#"{"op":"limit","id":1,"owner":1,"price":1,"qty":1}"#, "`side` is missing"),
        (r#"{"op":"limit","id":1,"owner":1,"side":"up","price":1,"qty":1}"#, "not `up`"),
        (r#"{"op":"limit","id":1,"owner":1,"side":"buy","qty":1}"#, "`price` is missing"),
        (r#"{"op":"market","id":1,"owner":1,"side":"buy"}"#, "`qty` is missing"),
        (r#"{"op":"limit","id":1,"owner":1,"side":"buy","price":"1","qty":1}"#, "an integer"),
        (r#"{"op":"ioc","id":1,"owner":1,"side":"buy","price":1,"qty":1,"stp":"all"}"#, "unknown stp `all`"),
    ];
    for (line, words) in table {
        let mut out = Vec::new();
        let script = format!("{{\"case\":\"good\"}}\n{{\"case\":\"bad\"}}\n\n{line}\n");
        let error = grid_script::run(script.as_bytes(), &mut out).unwrap_err().to_string();
        assert!(error.starts_with("line 4: ") && error.contains(words), "{line}: {error}");
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("{\"case\":\"good\"") && out.lines().count() == 1, "{line}: {out}");
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error_and_not_a_panic() {
    let error = grid_script::run(&b"{\"case\":\"\xff\xfe\"}\n"[..], Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("line 1: "), "{error}");
}

#[test]
fn one_owner_may_rest_and_trade_enormous_amounts_without_running_out() {
    let mut script = String::from("{\"case\":\"large\"}\n");
    for id in 0..200_u64 {
        let side = if id % 2 == 0 { "sell" } else { "buy" };
        script += &format!(
            "{{\"op\":\"limit\",\"id\":{id},\"owner\":{},\"side\":\"{side}\",\"price\":1000000,\"qty\":1000000000}}\n",
            id % 3
        );
    }
    let out = run(&script).unwrap();
    assert!(out.contains("\"rejected\":[],\"expired\":[]"), "{}", &out[out.len() - 100..]);
    assert_eq!(out.matches("\"taker\"").count(), 100);
}
