use super::*;
use crate::error::Kind;
use crate::event::{Cell, Chart, Event, RunEnded, RunInfo, Series, Sink, Style, Table};

/// A notebook with these cells.
fn notebook(cells: Value) -> Notebook {
    let text = json!({"cells": cells, "metadata": {"x": 1}, "nbformat": 4, "nbformat_minor": 5}).to_string();
    Notebook::parse("n.ipynb", &text).unwrap()
}

fn refusal(text: &str) -> Error {
    Notebook::parse("n.ipynb", text).unwrap_err()
}

fn written(notebook: &Notebook, name: &str) -> Value {
    let path = std::env::temp_dir().join(format!("loralab-notebook-{name}-{}.ipynb", std::process::id()));
    notebook.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(text.starts_with("{\n \"cells\"") && text.ends_with("}\n"), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn code_cells_come_in_order_from_both_forms_of_source() {
    let notebook = notebook(json!([
        {"cell_type": "markdown", "source": "# Title"},
        {"cell_type": "code", "source": ["load demo\n", "memory"]},
        {"cell_type": "raw", "source": []},
        {"cell_type": "code", "source": "train x"},
        {"cell_type": "code", "source": []},
    ]));
    let expected = [(1, "load demo\nmemory".to_owned()), (3, "train x".to_owned()), (4, String::new())];
    assert_eq!(notebook.code_cells(), expected);
}

#[test]
fn what_is_no_notebook_says_why() {
    for (text, why) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "invalid type"),
        ("{}", "no nbformat"),
        (r#"{"nbformat": 4}"#, "no list of cells"),
        (r#"{"nbformat": 4, "cells": {}}"#, "no list of cells"),
        (r#"{"nbformat": 4, "cells": [{"cell_type": "code", "source": ""}, {"source": ""}]}"#, "cell 2"),
        (r#"{"nbformat": 4, "cells": [{"cell_type": "code"}]}"#, "cell 1"),
        (r#"{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}"#, "cell 1"),
        (r#"{"nbformat": 4, "cells": [7]}"#, "cell 1"),
        (r#"{"nbformat": 3, "worksheets": []}"#, "nbformat 3"),
        (r#"{"nbformat": 5, "cells": []}"#, "nbformat 5"),
    ] {
        let error = refusal(text);
        assert_eq!(error.kind(), Kind::Format, "{text}");
        assert!(error.message().contains("n.ipynb") && error.message().contains(why), "{text}: {error}");
    }
    assert!(refusal(r#"{"nbformat": 3}"#).hint_text().is_some_and(|hint| hint.contains("nbconvert")));
}

#[test]
fn a_notebook_of_another_language_is_refused() {
    let text = |metadata: Value| json!({"cells": [], "metadata": metadata, "nbformat": 4}).to_string();
    let error = refusal(&text(json!({"kernelspec": {"name": "python3", "language": "python"}})));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("python"), "{error}");
    assert!(Notebook::parse("n", &text(json!({"kernelspec": {"name": "mine", "language": "loralab"}}))).is_ok());
    assert!(Notebook::parse("n", &text(json!({"kernelspec": {"name": "mine"}}))).is_ok());
}

#[test]
fn outputs_replace_earlier_ones_and_the_rest_stays() {
    let mut notebook = notebook(json!([
        {"cell_type": "markdown", "source": "a", "odd": 1},
        {"cell_type": "code", "source": "b", "outputs": [1], "execution_count": 7},
        {"cell_type": "code", "source": "c", "outputs": [2], "execution_count": 8},
    ]));
    notebook.clear_outputs();
    notebook.set_outputs(1, 1, vec![json!({"output_type": "stream"})]);
    notebook.set_outputs(99, 1, vec![]);
    let value = written(&notebook, "outputs");
    assert_eq!(value["metadata"], json!({"x": 1}));
    assert_eq!(value["cells"][0], json!({"cell_type": "markdown", "source": "a", "odd": 1}));
    assert_eq!(value["cells"][1]["outputs"], json!([{"output_type": "stream"}]));
    assert_eq!(value["cells"][1]["execution_count"], 1);
    assert_eq!(value["cells"][2]["outputs"], json!([]));
    assert_eq!(value["cells"][2]["execution_count"], Value::Null);
}

#[test]
fn a_script_becomes_a_notebook_that_can_be_read_again() {
    let cells = language::split_cells("load demo\n\n# %% train it\ntrain x\n");
    let notebook = Notebook::from_cells(&cells);
    let again = Notebook::parse("n", &written(&notebook, "script").to_string()).unwrap();
    assert_eq!(again.code_cells(), [(0, "load demo".to_owned()), (1, "# train it\ntrain x".to_owned())]);
}

#[test]
fn parameters_stand_behind_their_defaults_and_are_not_run() {
    let parameters = json!({"rank": 16, "name": "a b"});
    let parameters = parameters.as_object().unwrap();
    let cells = json!([
        {"cell_type": "code", "source": "load demo", "id": "injected-parameters"},
        {"cell_type": "code", "source": "rank = 8", "metadata": {"tags": ["parameters"]}},
        {"cell_type": "code", "source": "rank = 4", "metadata": {"tags": ["injected-parameters"]}},
        {"cell_type": "code", "source": "train x"},
    ]);
    let mut notebook = notebook(cells);
    notebook.inject(parameters);
    let expected = [(0, "load demo".to_owned()), (1, "rank = 8".to_owned()), (3, "train x".to_owned())];
    assert_eq!(notebook.code_cells(), expected);
    let cell = &written(&notebook, "injected")["cells"][2];
    assert_eq!(cell["source"], json!(["# Parameters\n", "rank = 16\n", "name = \"a b\""]));
    assert_eq!(
        (&cell["metadata"]["tags"][0], &cell["id"]),
        (&json!("injected-parameters"), &json!("injected-parameters-2"))
    );
}

#[test]
fn parameters_without_defaults_stand_at_the_top_and_none_nowhere() {
    let cells = json!([{"cell_type": "code", "source": "train x", "metadata": {"tags": 7}}]);
    let mut notebook = notebook(cells);
    notebook.inject(&Map::new());
    assert_eq!(notebook.code_cells().len(), 1);
    notebook.inject(json!({"a": [1, 2]}).as_object().unwrap());
    assert_eq!(notebook.code_cells(), [(1, "train x".to_owned())]);
    assert_eq!(written(&notebook, "top")["cells"][0]["source"][1], "a = [1, 2]");
}

fn chart() -> Chart {
    let points = vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)];
    Chart {
        title: "loss".to_owned(),
        x: "step",
        y: "loss",
        series: vec![Series { name: "a".into(), points, style: Style::Bold }],
        x_max: None,
    }
}

/// As the schema of nbformat 4.5 asks of an output.
fn assert_valid(output: &Value) {
    let is_text = |text: &Value| text.as_array().is_some_and(|lines| lines.iter().all(Value::is_string));
    match output["output_type"].as_str() {
        Some("stream") => assert!(output["name"].is_string() && is_text(&output["text"]), "{output}"),
        Some(kind @ ("display_data" | "execute_result")) => {
            assert!(output["metadata"].is_object(), "{output}");
            assert_eq!(output.get("execution_count").is_some(), kind == "execute_result", "{output}");
            for (mime, data) in output["data"].as_object().unwrap() {
                assert!(if mime == "image/png" { data.is_string() } else { is_text(data) }, "{mime}: {data}");
            }
        }
        other => panic!("{other:?}"),
    }
    let known = ["output_type", "name", "text", "data", "metadata", "execution_count"];
    assert!(output.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{output}");
}

#[test]
fn streams_grow_and_everything_else_is_display_data() {
    let recorder = Recorder::default();
    let stream = |text: &str, error| Event::Stream { text: text.to_owned(), error };
    let table = Table { columns: vec!["a"], rows: vec![vec![Cell::Count(7)]], ..Table::default() };
    for event in [
        stream("one\n", false),
        Event::Next(vec![]),
        stream("two\n", false),
        stream("careful\n", true),
        Event::Chart(chart()),
        Event::Table(table),
        Event::Value("16".to_owned()),
    ] {
        recorder.emit(event);
    }
    let outputs = recorder.finish(None, "");
    outputs.iter().for_each(assert_valid);
    assert_eq!(outputs[0], json!({"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]}));
    assert_eq!(outputs[1]["name"], "stderr");
    let data = &outputs[2]["data"];
    assert!(data["image/png"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    assert!(data["image/svg+xml"][0].as_str().unwrap().starts_with("<svg"));
    assert!(data["text/plain"].as_array().is_some_and(|lines| lines.len() > 3));
    assert_eq!(outputs[2]["metadata"], json!({"needs_background": "light"}));
    assert_eq!(outputs[3]["data"]["text/plain"], json!(["a\n", "─\n", "7"]));
    assert!(outputs[3]["data"]["text/html"][0].as_str().unwrap().starts_with("<style>"));
    assert_eq!(outputs[4]["output_type"], "execute_result");
    assert_eq!(outputs.len(), 5);
    assert!(recorder.finish(None, "").is_empty());
    let mut notebook = notebook(json!([{"cell_type": "code", "source": "x"}]));
    notebook.set_outputs(0, 3, outputs);
    assert_eq!(written(&notebook, "counted")["cells"][0]["outputs"][4]["execution_count"], 3);
}

#[test]
fn rows_generated_side_by_side_are_not_mixed() {
    let recorder = Recorder::default();
    let say = |adapter: &str, text: &str, begins, ends| {
        recorder.emit(Event::Generated { adapter: adapter.to_owned(), text: text.to_owned(), begins, ends });
    };
    say("base", "a", true, false);
    say("r16", "x", true, false);
    say("base", "b", false, true);
    say("r16", "y", false, false);
    let outputs = recorder.finish(None, "");
    outputs.iter().for_each(assert_valid);
    let text = json!(["base\n", "ab\n", "r16\n", "▸xy\n", "▸ departs from base · ‹…›: what base does not say there"]);
    assert_eq!(outputs[0]["data"]["text/plain"], text);
    assert_eq!(outputs.len(), 1);
}

#[test]
fn a_run_is_kept_as_it_ended() {
    let recorder = Recorder::default();
    let info = RunInfo {
        run: "0001".to_owned(),
        title: "r16".to_owned(),
        subtitle: String::new(),
        first_step: 1,
        steps: 3,
        ..RunInfo::default()
    };
    recorder.emit(Event::RunStarted(info));
    recorder.emit(Event::Warning("careful".to_owned()));
    let sentence = "done".to_owned();
    recorder.emit(Event::RunEnded(RunEnded { sentence, kept: String::new(), interrupted: false, chart: chart() }));
    recorder.emit(Event::Clear);
    recorder.emit(Event::Text("only this".to_owned()));
    assert_eq!(recorder.finish(None, "").len(), 1);

    recorder.emit(Event::RunEnded(RunEnded {
        sentence: "done".to_owned(),
        kept: String::new(),
        interrupted: false,
        chart: chart(),
    }));
    let outputs = recorder.finish(None, "");
    outputs.iter().for_each(assert_valid);
    assert_eq!(outputs.len(), 2);
    assert!(outputs[0]["data"]["text/plain"].as_array().unwrap().contains(&json!("done")));
    assert!(outputs[1]["data"]["image/svg+xml"].is_array());
}

#[test]
fn an_error_shows_its_place() {
    let outputs = Recorder::default().finish(Some(&Error::usage("no").at(5..6).hint("yes")), "load x");
    assert_eq!(outputs[0]["ename"], "Usage");
    assert_eq!(outputs[0]["evalue"], "no");
    assert_eq!(outputs[0]["traceback"], json!(["error[Usage]: no", "  1 │ load x", "    │      ^", "hint: yes"]));
}
