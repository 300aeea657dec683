"""The conformance suite of the Jupyter project."""

import jupyter_kernel_test


class TestKernel(jupyter_kernel_test.KernelTests):
    kernel_name = "loralab"
    language_name = "loralab"
    file_extension = ".lora"
    code_hello_world = "echo hello, world"
    code_stderr = "echo --err oops"
    completion_samples = [
        {"text": "quan", "matches": {"quantize"}},
        {"text": "load demo\nunl", "matches": {"unload"}},
        {"text": "train lesson --lear", "matches": {"--learning-rate"}},
        {"text": "quantize nf", "matches": {"nf4"}},
        {"text": "frobnicate", "matches": set()},
    ]
    complete_code_samples = ["memory", "train x --steps 1", "", "# a comment", "for r in (4 8): echo $r", "%%data x\na\n%%"]
    incomplete_code_samples = ["train x \\", "echo 'unclosed", 'echo """', "for r in (4 8):"]
    invalid_code_samples = ["train x --nope", "frobnicate"]
    code_page_something = "?train"
    code_generate_error = "load /no/such/model"
    code_execute_result = [
        {"code": "config batch-size", "result": "4"},
        {"code": "config schedule", "result": "linear"},
    ]
    code_display_data = [
        {"code": "plot --demo", "mime": "image/svg+xml"},
        {"code": "plot --demo", "mime": "image/png"},
    ]
    code_history_pattern = "config max*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "train"
    code_clear_output = "clear"


class TestWelcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = "loralab"
    support_iopub_welcome = True
