"""Real command lines: raw files of each modality to tables, JSON and pictures, equal to searches from Python."""

import json
import shutil
import sys
from itertools import permutations

import mne
import nibabel
import numpy as np
import pytest
from PIL import Image

from neural_clip import NeuralGallery, load_sample
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.gallery.conversion import WAYS
from neural_clip.gallery.embedder import Embedder
from neural_clip.queries.options import RecordingOptions
from neural_clip.queries.verbs import open_queries

FILES = {
    "eeg": ["rec.edf", "--events", "events.tsv", "--keep", "trial_type=image"],
    "meg": ["rec_raw.fif", "--keep", "value=5"],
    "fmri": ["betas.nii.gz", "--mask", "mask.nii.gz"],
}


@pytest.fixture(scope="module")
def embedder(lab):
    return Embedder.of(lab.checkpoint)


@pytest.fixture
def here(lab, monkeypatch):
    monkeypatch.chdir(lab.root)
    return lab


def answered(capsys, *words):
    """What a command prints as JSON, and its lines on stderr."""
    cli.main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err.splitlines()


def found(answer):
    return [[hit["image_id"] for hit in query["hits"]] for query in answer["queries"]]


def from_python(modality, embedder):
    """The same recordings as `docs/checkpoints.md` reads them."""
    if modality == "fmri":
        return nibabel.load("betas.nii.gz"), {"mask": nibabel.load("mask.nii.gz")}
    times = 1 + 1.3 * np.arange(20)
    if modality == "eeg":
        raw = mne.io.read_raw_edf("rec.edf", preload=True, verbose="error").filter(None, 30, verbose="error")
    else:
        raw = mne.io.read_raw_fif("rec_raw.fif", preload=True, verbose="error").filter(0.5, None, verbose="error")
    samples = np.round(times * raw.info["sfreq"]).astype(int) + raw.first_samp
    events = np.column_stack([samples, np.zeros_like(samples), np.ones_like(samples)])
    return mne.Epochs(raw, events, tmin=-0.2, tmax=0.5, baseline=None, preload=True, verbose="error"), {}


@pytest.mark.parametrize("modality", FILES)
def test_a_raw_file_becomes_a_table_and_a_picture_as_from_python(here, embedder, modality, capsys, tmp_path):
    figure = tmp_path / "new" / "panel.png"
    words = ["decode", *FILES[modality], "--gallery", "stimuli", "--checkpoint", "checkpoint", "--subject", "sub-01",
             "--top-k", "3"]  # fmt: skip
    answer, _ = answered(capsys, *words)
    recordings, said = from_python(modality, embedder)
    images = NeuralGallery.from_images(embedder, "stimuli")
    expected = images.decode(recordings, "sub-01", modality=modality, top_k=3, **said)
    assert found(answer) == [[hit.image_id for hit in ranked] for ranked in expected]
    scores = [[hit["score"] for hit in query["hits"]] for query in answer["queries"]]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    assert answer["searched"] == {"rows": 20, "images": 20} and answer["chance"] == {"top1": 0.05, "top3": 0.15}
    assert answer["simulated"] is False and answer["checkpoint"]["sha256"] == embedder.identity.sha256

    answer = cli.main([*words, "--figure", str(figure), "--calibrate", "csls"])
    assert answer.hits.asked is None  # no column for what was seen, which a raw file does not say
    lines = capsys.readouterr().out.splitlines()
    title = {"eeg": "EEG", "meg": "MEG", "fmri": "fMRI"}[modality]
    assert lines[0] == (
        f"decode: 20 {title} recordings among 20 images; by chance a given image is first in 5 % and among the first "
        "3 in 15 %"
    )
    assert lines[2].split()[-3:] == ["rank", "score", "image_id"] and len(lines) == 4 + 60 + 2 + 2
    assert lines[-3].startswith("20 of 20 without confidence: Confidence is calibrated for the order by cosine")
    assert lines[-1] == f"figure:     {figure}" and Image.open(figure).size[0] > 300
    by_csls = images.decode(recordings, "sub-01", modality=modality, top_k=3, calibrate="csls", **said)
    assert answer.hits.rows.tolist() == by_csls.rows.tolist()
    assert [line.split()[-1] for line in lines[4:7]] == [hit.image_id for hit in by_csls[0]]


@pytest.mark.parametrize("modality", FILES)
def test_recordings_of_a_file_have_the_vectors_of_the_rows_that_were_prepared_from_it(here, embedder, modality):
    """Filtered, cut, referred to the baseline, brought to the rate and scaled alike."""
    said = {
        "eeg": {"events": here.root / "events.tsv", "keep": ("trial_type=image",)}, "meg": {"keep": ("value=5",)},
        "fmri": {"mask": here.root / "mask.nii.gz"},
    }[modality]  # fmt: skip
    queries = open_queries(FILES[modality][0], embedder, RecordingOptions(subject="sub-01", **said))()
    rows = NeuralGallery.from_recordings(embedder, here.sets[modality])
    assert len(queries.names) == len(rows) == 20
    for row, name in enumerate(rows.image_ids):
        np.testing.assert_allclose(queries.gallery.vectors[int(name[2:4])], rows.vectors[row], atol=2e-4)


def test_files_and_rows_have_the_confidence_of_their_subject(here, capsys, tmp_path):
    shutil.copytree("checkpoint", tmp_path / "calibrated")
    config = tmp_path / "calibrated" / "config.json"
    content = json.loads(config.read_text())
    content["fmri_config"]["confidence_temperature"] = {"sub-01": 9.0}
    config.write_text(json.dumps(content))
    words = ["--gallery", "stimuli", "--checkpoint", tmp_path / "calibrated"]
    images = NeuralGallery.from_images(str(tmp_path / "calibrated"), "stimuli")
    recordings, said = from_python("fmri", None)
    expected = images.decode(recordings, "sub-01", modality="fmri", **said)
    for asked in (["betas.nii.gz", *FILES["fmri"][1:], "--subject", "sub-01"], ["sets/fmri"]):
        answer, _ = answered(capsys, "decode", *asked, *words)
        found = [query["hits"][0]["confidence"] for query in answer["queries"]]
        assert all(1 / 20 < one < 1 for one in found) and answer["queries"][0]["why_no_confidence"] is None
        if asked[0] == "betas.nii.gz":
            np.testing.assert_allclose(found, [hit.confidence for hit in expected], rtol=1e-4)
    cli.main(["decode", "sets/fmri", "--rows", "0", *map(str, words)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["query", "shown", "rank", "score", "confidence", "image_id"]
    assert lines[-1].startswith("confidence: the probability that this is the image that was seen")
    cli.main(["decode", "sets/eeg", "--rows", "0", *map(str, words)])
    lines = capsys.readouterr().out.splitlines()
    assert "confidence" not in lines[2] and "1 of 1 without confidence: The checkpoint has no temperature" in lines[-1]


def test_all_conversions_by_each_way_equal_those_from_python(here, embedder, capsys, tmp_path):
    folder = tmp_path / "signals"
    cli.main(["gallery", "build", *(f"sets/{name}" for name in FILES), "--recordings", "--checkpoint", "checkpoint",
              "--output-dir", str(folder)])  # fmt: skip
    assert capsys.readouterr().out == f"gallery:    {folder}\n"
    signals, bank = NeuralGallery.load_from_disk(folder, embedder), NeuralGallery.from_images(embedder, "stimuli")
    directions = list(permutations(FILES, 2))
    assert len(directions) == 6
    for source, target in directions:
        part = here.data[source].split("test").at(np.arange(2))
        for via in WAYS:
            words = ["convert", f"sets/{source}", "--rows", 0, 1, "--to", target, "--gallery", folder, "--via", via]
            words += ["--bank", "stimuli"] if via == "images" else []
            answer, _ = answered(capsys, *words, "--checkpoint", "checkpoint", "--top-k", 4)
            expected = signals.convert(part, to=target, via=via, bank=bank, top_k=4)
            assert found(answer) == [[hit.image_id for hit in ranked] for ranked in expected]
            assert [query["shown"] for query in answer["queries"]] == part.image_ids.tolist()
            assert {hit["modality"] for query in answer["queries"] for hit in query["hits"]} == {target}
            assert f"via {via}" in answer["said"]


def test_images_find_recordings_and_words_find_both(here, embedder, capsys):
    where = ["--checkpoint", "checkpoint", "--gallery", "sets/meg", "sets/fmri", "--top-k", "3"]
    signals = NeuralGallery.from_recordings(embedder, ["sets/meg", "sets/fmri"])
    answer, _ = answered(capsys, "encode", "stimuli/im03.png", "stimuli/im04.png", *where, "--modality", "fmri")
    expected = signals.encode(["stimuli/im03.png", "stimuli/im04.png"], modality="fmri", top_k=3)
    assert found(answer) == [[hit.image_id for hit in ranked] for ranked in expected]
    assert [query["query"] for query in answer["queries"]] == ["im03.png", "im04.png"]
    answer, _ = answered(capsys, "search", "a red square", *where, "--modality", "meg")
    expected = signals.search_text("a red square", modality="meg", top_k=3)
    assert found(answer) == [[hit.image_id for hit in expected[0]]] and answer["chance"] == {"top1": 1 / 20}
    answer, _ = answered(capsys, "search", "a red square", "--checkpoint", "checkpoint", "--gallery", "stimuli")
    expected = NeuralGallery.from_images(embedder, "stimuli").search_text("a red square")
    assert found(answer) == [[hit.image_id for hit in expected[0]]] and len(found(answer)[0]) == 5


def test_rows_of_a_prepared_set_and_of_a_gallery_are_asked_for(here, embedder, capsys, tmp_path):
    part = here.data["meg"].split("validation").at(np.array([2, 0]))
    expected = NeuralGallery.from_images(embedder, "sets/meg").decode(part)
    where = ["--gallery", "sets/meg", "--checkpoint", "checkpoint"]
    answer, _ = answered(capsys, "decode", "sets/meg", "--split", "validation", "--rows", 2, 0, *where)
    assert found(answer) == [[hit.image_id for hit in ranked] for ranked in expected]
    assert [query["query"] for query in answer["queries"]] == ["validation 2 (sub-01)", "validation 0 (sub-01)"]
    NeuralGallery.from_recordings(embedder, here.data["meg"].split("validation")).save_to_disk(tmp_path / "own")
    again, _ = answered(capsys, "decode", tmp_path / "own", "--rows", 2, 0, *where)
    assert found(again) == found(answer) and again["queries"][0]["shown"] == part.image_ids[0]
    with pytest.raises(DataError, match="has 4 such rows, counted from 0, but --rows names 4"):
        cli.main(["decode", "sets/meg", "--split", "validation", "--rows", "4", *where])


def test_what_is_simulated_says_so_in_the_line_of_the_scores(capsys):
    """In the table, in JSON, and in the picture's title, which is the same text."""
    sample = load_sample("meg")
    words = ["decode", sample.data, "--rows", 0, "--gallery", sample.data, "--checkpoint", sample.checkpoint]
    answer, _ = answered(capsys, *words)
    assert answer["simulated"] is True and answer["said"].startswith("decode: 1 SIMULATED MEG recording among 46")
    answer, _ = answered(capsys, "search", "an arrow", "--gallery", sample.data, "--checkpoint", sample.checkpoint)
    assert answer["said"].endswith("; the checkpoint learnt from SIMULATED recordings")
    words = ["search", "an arrow", "--gallery", sample.data, "--checkpoint", sample.checkpoint, "--modality", "meg"]
    assert "among 46 SIMULATED MEG recordings" in answered(capsys, *words)[0]["said"]


def test_a_file_of_a_simulated_corpus_is_called_simulated(here, capsys, tmp_path):
    (tmp_path / "raw").mkdir()
    shutil.copy("betas.nii.gz", tmp_path / "raw" / "betas.nii.gz")
    (tmp_path / "raw" / "SIMULATED.json").write_text("{}")
    words = ["decode", tmp_path / "raw" / "betas.nii.gz", *FILES["fmri"][1:], "--subject", "sub-01", "--gallery"]
    answer, _ = answered(capsys, *words, "stimuli", "--checkpoint", "checkpoint")
    assert answer["simulated"] is True and "20 SIMULATED fMRI recordings among 20 images" in answer["said"]


def test_json_is_all_that_is_printed_and_the_table_ends_with_the_place(here, capsys, tmp_path):
    words = ["decode", "sets/fmri", "--gallery", "stimuli", "--checkpoint", "checkpoint"]
    answer, lines = answered(capsys, *words, "--figure", tmp_path / "a.svg")
    assert lines[-1] == f"figure:     {tmp_path / 'a.svg'}" and answer["figure"] == str(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().lstrip().startswith("<?xml")


WRONG = [
    (["decode", "gone.edf"], "There is no recording 'gone.edf'"),
    (["decode", "events.tsv"], "'events.tsv' cannot be read by mne.io.read_raw: "),
    (["decode", "stimuli"], "'stimuli' is a folder without recordings"),
    (["decode", "stimuli/im00.png"], "'stimuli/im00.png' cannot be read by mne.io.read_raw"),
    (["decode", "betas.nii.gz", "--subject", "sub-01"], "An fMRI image needs 'mask'"),
    (["decode", "betas.nii.gz", "--subject", "sub-01", "--mask", "gone.nii"], "There is no NIfTI file 'gone.nii'"),
    (["decode", "rec.edf", "--subject", "sub-01", "--mask", "mask.nii.gz"], "of which --mask is not used"),
    (["decode", "rec.edf", "--subject", "sub-09", "--events", "events.tsv"], "Allowed values are ['sub-01'], but got "
     "['sub-09']"),
    (["decode", "rec.edf", "--events", "events.tsv"], "'subject' is missing; say whose recordings these are"),
    (["decode", "rec.edf", "--subject", "sub-01"], "does not tell when images appeared: it has no annotations"),
    (["decode", "rec.edf", "--subject", "sub-01", "--events", "gone.tsv"], "There is no table 'gone.tsv'"),
    (["decode", "rec.edf", "--subject", "sub-01", "--events", "events.tsv", "--keep", "trial_type=picture"],
     "'events.tsv': no row is left after 'keep'"),
    (["decode", "rec.edf", "--subject", "sub-01", "--events", "events.tsv", "--keep", "image"],
     "Allowed is COLUMN=VALUE, but got 'image'"),
    (["decode", "rec.edf", "--modality", "fmri", "--subject", "sub-01"], "'rec.edf' holds EEG or MEG"),
    (["decode", "sets/eeg", "--events", "events.tsv"], "holds a prepared data set, of which --events is not used"),
    (["decode", "sets/eeg", "--modality", "meg"], "holds eeg recordings, but --modality is meg"),
    (["encode", "gone.png", "--gallery", "sets/eeg"], "There is no image 'gone.png'"),
    (["encode", "events.tsv", "--gallery", "sets/eeg"], "'events.tsv'"),
    (["encode", "stimuli", "--gallery", "stimuli"], "'stimuli' cannot be searched for recordings. It is no gallery"),
    (["convert", "sets/eeg", "--to", "meg", "--gallery", "sets/fmri"], "--to is meg, but the recordings"),
    (["convert", "sets/eeg", "--to", "fmri", "--gallery", "sets/fmri", "--via", "images"], "or --bank FOLDER"),
    (["search", " "], "a text that is not empty"),
    (["search", "x", "--gallery", "sets/eeg", "--subject", "sub-07"], "Allowed is 'sub-01', but got 'sub-07'"),
]  # fmt: skip


def test_a_text_is_no_recording_and_images_are_not_what_encode_searches(here, embedder, tmp_path):
    (tmp_path / "notes.txt").write_text("seen: a dog")
    with pytest.raises(DataError, match=r"notes\.txt' is text; a recording of EEG or MEG is a file that mne reads"):
        cli.main(["decode", str(tmp_path / "notes.txt"), "--gallery", "stimuli", "--checkpoint", "checkpoint"])
    NeuralGallery.from_images(embedder, "stimuli").save_to_disk(tmp_path / "images")
    words = ["encode", "stimuli", "--gallery", str(tmp_path / "images"), "--checkpoint", "checkpoint"]
    with pytest.raises(DataError, match="A gallery of images cannot encode; that takes a gallery of recordings"):
        cli.main([*words, "--modality", "eeg"])
    with pytest.raises(DataError, match=r"'checkpoint/config\.json' is a file, but a model is a folder"):
        cli.main(["decode", "rec.edf", "--gallery", "stimuli", "--checkpoint", "checkpoint/config.json"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["betas.nii.gz", "--subject", "sub-01"], "An fMRI image needs '--mask': an image or array"),
        (["rec.edf", "--events", "events.tsv"], "'--subject' is missing; say whose recordings these are"),
        (["sets/eeg", "--top-k", "0"], "Invalid value for the '--top-k' parameter. Allowed is 1 and more"),
        (
            ["sets/eeg", "--figure", "hits.doc"],
            "Invalid value for the '--figure' parameter. Allowed values are '.png'",
        ),
    ],
)
def test_messages_at_a_shell_call_options_as_they_are_typed(here, words, told, capsys, monkeypatch):
    words = ["neural-clip", "decode", *words, "--gallery", "stimuli", "--checkpoint", "checkpoint"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        cli.entry()
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_inputs_are_told_in_a_sentence(here, words, message):
    words = [*words, *(["--gallery", "stimuli"] if "--gallery" not in words else [])]
    with pytest.raises(DataError) as caught:
        cli.main([*words, "--checkpoint", "checkpoint"])
    assert message in str(caught.value)
