"""Any picture and any file that was kept ends as a result or as a UserError of one line."""

import io
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from tests.umm.conftest import make_tiue, make_umm, picture
from tests.umm.profiles import DISPLAY_P3, rgb_profile
from umm_bench.errors import UserError
from umm_bench.images import open_image, square
from umm_bench.umm import SubjectCard, load_card, load_tiue
from umm_bench.umm.checkpoint import STATE_FILE, load_state, save_state
from umm_bench.umm.settings import TrainConfig
from umm_bench.umm.trainer import initial_state


def _encoded(kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    picture(3, (8, 6)).save(buffer, kind, **settings)
    return buffer.getvalue()


entries = st.tuples(
    st.one_of(st.sampled_from([0x0112, 0x011A, 0x0131, 0x8769, 0x8825, 0xA005, 0x9003]), st.integers(0, 65535)),
    st.one_of(st.integers(0, 14), st.integers(0, 65535)),
    st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1)),
    st.one_of(st.binary(min_size=4, max_size=4), st.integers(0, 9).map(lambda v: struct.pack("<HH", v, 0))),
)
turned = st.sampled_from([3, 6, 8]).map(lambda value: (0x0112, 3, 1, struct.pack("<HH", value, 0)))
blocks = st.one_of(
    st.lists(st.one_of(entries, turned), max_size=5).map(
        lambda tags: b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags))
        + b"".join(struct.pack("<HHI4s", *tag) for tag in tags) + bytes(4)
    ),
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda rest: b"Exif\0\0MM\0*" + rest),
)  # fmt: skip


# PIL's own, while it writes or reads a TIFF
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(block=blocks, kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
def test_an_exif_block_never_refuses_a_picture(outcomes, block, kind):
    try:
        data = _encoded(kind, exif=block)
    except Exception:  # PIL reads the block to write a TIFF
        assume(False)
    size = open_image(data).size
    assert sorted(size) == [6, 8]
    outcomes["turned" if size == (6, 8) else "as stored"] += 1


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with some bytes changed, or cut, or longer."""
    changes = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=6)

    def change(drawn: tuple[list[tuple[int, int]], int, bytes]) -> bytes:
        places, end, more = drawn
        result = bytearray(data)
        for place, value in places:
            result[place] = value
        return bytes(result[:end]) + more

    ends = st.one_of(st.just(len(data)), st.integers(0, len(data)))
    return st.tuples(changes, ends, st.binary(max_size=8)).map(change)


KINDS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "JPEG2000"]
PROFILE = {"icc_profile": rgb_profile(DISPLAY_P3)}
PICTURES = [_encoded(kind) for kind in KINDS] + [_encoded(kind, **PROFILE) for kind in KINDS[:2]]


@given(data=st.one_of(*(damaged(data) for data in PICTURES), st.binary(max_size=80)))
def test_damaged_pictures(outcomes, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 2**22)  # a header may ask for gigabytes
        try:
            image = open_image(data)
            outcomes["pictures"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["UserError"] += 1
            return
    assert image.mode == "RGB" and square(image).width == square(image).height


MODES = [
    "1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La", "I;16",
]  # fmt: skip


@given(mode=st.sampled_from(MODES), width=st.integers(0, 5), height=st.integers(0, 5), profile=st.binary(max_size=200),
       transparency=st.one_of(st.none(), st.integers(-1, 300), st.binary(max_size=3), st.text(max_size=2)))  # fmt: skip
def test_pictures_in_memory(outcomes, mode, width, height, profile, transparency):
    image = Image.new(mode, (width, height))
    image.info |= {"icc_profile": profile} | ({} if transparency is None else {"transparency": transparency})
    try:
        assert open_image(image).mode == "RGB"
        outcomes["pictures"] += 1
    except UserError as error:
        outcomes[str(error)[:30]] += 1


# -- files that were kept


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_sd, tiny_image_encoder):
    """A pipeline, and the bytes of a card, of a TIUE and of a training's state."""
    folder = tmp_path_factory.mktemp("kept")
    SubjectCard(torch.randn(2, 4), "dog", 3).save(folder / "card")
    pipe = make_umm(tiny_sd, tiny_image_encoder)
    config = TrainConfig(hidden_dim=4)
    state = initial_state(pipe, config)
    for parameter in state.tiue.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    save_state(folder / "state", state, config, {"data": "d"})
    return folder, pipe, config


DAMAGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


def spoil(path: Path, data: bytes, changes: list[tuple[float, int]], end: float, header: bool) -> None:
    """Writes `data` with bytes changed, in its header (where most of what can go wrong is written) or anywhere."""
    size = 8 + int.from_bytes(data[:8], "little") if header else len(data)
    result = bytearray(data)
    for place, value in changes:
        result[int(place * size)] = value
    path.write_bytes(bytes(result[: max(1, int(end * len(data)))]))


ENDS = st.one_of(st.just(1.0), st.floats(0, 1))


@given(changes=DAMAGES, end=ENDS, header=st.booleans())
def test_damaged_cards(kept, outcomes, changes, end, header):
    folder = kept[0]
    spoil(folder / "spoilt", (folder / "card").read_bytes(), changes, end, header)
    try:
        card = load_card(folder / "spoilt")
        assert card.words_KD.ndim == 2 and card.words_KD.isfinite().all() and card.words_KD.numel()
        outcomes["cards"] += 1
    except UserError:
        outcomes["UserError"] += 1


@given(changes=DAMAGES, end=ENDS, header=st.booleans(), file=st.sampled_from(["config.json", "weights"]))
def test_damaged_tiues(kept, outcomes, changes, end, header, file):
    folder = kept[0] / "tiue"
    if not folder.exists():
        make_tiue(hidden_dim=4).save_pretrained(folder)
        (folder / "config.json").rename(folder / "whole.config.json")
        (folder / "diffusion_pytorch_model.safetensors").rename(folder / "whole.weights")
    for name, target in (("config.json", "config.json"), ("weights", "diffusion_pytorch_model.safetensors")):
        data = (folder / f"whole.{name}").read_bytes()
        if name == file:
            spoil(folder / target, data, changes, end, header and name == "weights")
        else:
            (folder / target).write_bytes(data)
    try:
        assert all(tensor.isfinite().all() for tensor in load_tiue(folder).state_dict().values())
        outcomes["TIUEs"] += 1
    except UserError:
        outcomes["UserError"] += 1


@given(changes=DAMAGES, end=ENDS, header=st.booleans())
def test_damaged_training_states(kept, outcomes, changes, end, header):
    folder, pipe, config = kept
    data = (folder / "state" / STATE_FILE).read_bytes()
    (folder / "resumed").mkdir(exist_ok=True)
    spoil(folder / "resumed" / STATE_FILE, data, changes, end, header)
    try:
        state = load_state(folder / "resumed", pipe, config, {"data": "d"})
        for parameter in state.tiue.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimizer.step()
        outcomes["states that go on"] += 1
    except UserError:
        outcomes["UserError"] += 1
