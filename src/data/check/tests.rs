use super::*;

const CONTEXT: usize = 1 << 20;

fn parse(text: &str) -> DataSet {
    DataSet::parse("cell", text, Format::Auto).unwrap()
}

fn pairs(responses: &[&str]) -> DataSet {
    let row = |(i, r): (usize, &&str)| serde_json::json!({"prompt": format!("q{i}"), "response": r}).to_string();
    parse(&responses.iter().enumerate().map(row).collect::<Vec<_>>().join("\n"))
}

fn found(finding: Option<Finding>) -> String {
    finding.unwrap().found
}

#[test]
fn repeated_rows_are_counted_and_one_is_named() {
    let again = parse("{\"text\": \"ab\"}\n{\"text\": \"ab\"}\n{\"text\": \"cd\"}\n{\"text\": \"ab\"}");
    assert_eq!(found(duplicates(&again)), "2 rows repeat an earlier one word by word, as line 2");
    // The same answer to another question is no repetition.
    assert_eq!(duplicates(&pairs(&["a", "a"])), None);
}

#[test]
fn responses_that_say_nothing_are_named() {
    let said = found(near_empty(&pairs(&["yes", "", " \n", "...", "4"])));
    assert_eq!(said, "3 rows have a response without a letter or digit: lines 2, 3, 4");
    assert_eq!(near_empty(&pairs(&["4", "B", "はい", "no."])), None);
    let silent = parse(r#"{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "-"}]}"#);
    assert!(found(near_empty(&silent)).starts_with("1 row has"));
    assert_eq!(near_empty(&parse("{\"input_ids\": [1, 2]}")), None);
}

#[test]
fn responses_of_one_phrase_are_not_diverse() {
    let phrase = pairs(&["I am sorry I cannot help with that"; 50]);
    let (distinct, all) = triples(&phrase);
    assert_eq!((distinct, all), (6, 300));
    assert_eq!(found(diversity(distinct, all)), "only 2.0 % of the responses' word triples are distinct");
    assert_eq!(diversity(200, 300), None);
    assert_eq!(diversity(6, 30), None, "too few to tell");
    assert_eq!(triples(&pairs(&["", "one two"])), (0, 0));
}

#[test]
fn rows_of_other_data_sets_are_found() {
    let (mine, mut other) = (pairs(&["a", "b", "c"]), pairs(&["a", "x"]));
    other.name = "mine.valid".into();
    assert_eq!(found(leak(&mine, &other)), "1 of 2 rows of mine.valid is also here");
    assert_eq!(leak(&mine, &pairs(&["x", "y"])), None);
    let rules: Vec<&str> =
        check_rows(&mine, triples(&mine), [&other, &other]).iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["leakage", "leakage"]);
}

#[test]
fn trained_tokens_are_few_or_none() {
    let data = pairs(&["a"; 7]);
    let said = found(untrained(&[1, 2, 3, 4, 5, 7], &data));
    assert_eq!(said, "6 rows of 7 have no trained token: lines 1, 2, 3, 4, 5 and 1 more");
    assert_eq!(untrained(&[], &data), None);
    assert_eq!(found(few_trained(2, 100)), "only 2.0 % of the tokens are trained");
    assert_eq!(few_trained(50, 100), None);
}

#[test]
fn cut_rows_tell_what_was_lost() {
    let said = |lost| found(cut(2, lost, 9, 5, CONTEXT));
    assert_eq!(said(Some(1)), "2 rows were cut to 5 tokens, 1 trained token lost");
    assert_eq!(said(Some(0)), "2 rows were cut to 5 tokens, no trained token lost");
    assert_eq!(said(None), "2 rows were cut to 5 tokens");
    assert_eq!(cut(0, Some(0), 5, 5, CONTEXT), None);
}

#[test]
fn begins_and_ends_are_looked_at() {
    assert!(found(no_end(0, true)).starts_with("No trained answer"));
    assert_eq!((no_end(1, true), no_end(0, false)), (None, None));
    assert!(found(doubled_bos(2, true)).starts_with("2 rows begin"));
    assert_eq!(doubled_bos(0, true), None);
    assert!(found(last_turn_only(1)).starts_with("In 1 conversation "));
    assert_eq!(last_turn_only(0), None);
}
