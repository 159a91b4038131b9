"""The promises about models and prompts, over every family (DESIGN, promises 1 to 7 and 10)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anacrusis.errors import ModelError, PromptError
from anacrusis.measure.predict import mixed_scores, scores
from anacrusis.model.model import Model, Placed
from anacrusis.model.rows import Row, collate
from anacrusis.model.warm import warm
from anacrusis.model.write import generate, write
from anacrusis.prompt import store
from anacrusis.prompt.values import Frame, Head, Prefix, Prompt, Soft, Text
from anacrusis.testing import FAMILIES, tiny

ALL = (*FAMILIES, "minilm")
CAUSAL = ("gpt2", "llama", "qwen2", "mistral", "gemma2")
TEXTS = [("w1 w2 w3",), ("w4 w5 w6 w7 w8 w9",), ("w10",), ("w11 w12 w3 w4",)]


@pytest.fixture(scope="module", params=ALL)
def model(request: pytest.FixtureRequest) -> Model:
    return tiny(request.param)


def normal(*shape: int, seed: int = 0, scale: float = 0.5) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def soft(model: Model, P: int = 4, seed: int = 1, **kw: object) -> Soft:
    return Soft(vectors=normal(P, model.hidden, seed=seed), **kw)  # type: ignore[arg-type]


def prefix(model: Model, P: int = 3, seed: int = 2, shift: int = 0, **kw: object) -> Prefix:
    keys: dict[str, list[Tensor]] = {}
    values: dict[str, list[Tensor]] = {}
    for n, s in enumerate(model.sites):
        keys.setdefault(s.stack, []).append(normal(s.heads, P, s.dim, seed=seed + 2 * n))
        values.setdefault(s.stack, []).append(normal(s.heads, P, s.dim, seed=seed + 2 * n + 1))
    return Prefix(
        keys={k: tuple(v) for k, v in keys.items()}, values={k: tuple(v) for k, v in values.items()}, shift=shift, **kw
    )  # type: ignore[arg-type]


def prompts(model: Model) -> list[Prompt]:
    offset = normal(6, model.hidden, seed=5)
    return [soft(model), Soft(vectors=normal(2, model.hidden, seed=6), offset=offset), prefix(model)]


def batch_of(model: Model, texts: list[tuple[str, ...]] = TEXTS, prompt: Prompt | None = None, side: str = "right"):
    rows = list(model.renderer(prompt.frame if prompt else Frame(), prompt).rows(texts))
    return collate(rows, side)


def padded(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    T = max(map(len, rows))
    fill = [[0] * (T - len(r)) for r in rows]
    ids = [f + r if side == "left" else r + f for f, r in zip(fill, rows, strict=True)]
    mask = [[0] * len(f) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(f)
            for f, r in zip(fill, rows, strict=True)]  # fmt: skip
    return torch.tensor(ids), torch.tensor(mask)


def own_rows(model: Model) -> list[list[int]]:
    return [list(r.codes) for r in model.renderer(Frame()).rows(TEXTS)]


def reference(model: Model, ids: Tensor, mask: Tensor) -> Tensor:
    """What transformers itself computes, positions taken from the mask."""
    more = {"position_ids": model.positions(mask.bool())} if model.takes_positions else {}
    core = model.network.get_encoder() if model.two_stacks else model.network.base_model
    with torch.no_grad():
        return core(input_ids=ids, attention_mask=mask, **more).last_hidden_state * mask[..., None]


# 1: the network is untouched


def state(model: Model) -> tuple[dict[str, Tensor], list[object]]:
    net = model.network
    hooks = [(m._forward_hooks, m._forward_pre_hooks, m._backward_hooks) for m in net.modules()]
    return (
        {k: v.clone() for k, v in net.state_dict().items()},
        [
            [(id(m), m.training, sorted(m.__dict__)) for m in net.modules()],
            [(len(a), len(b), len(c)) for a, b, c in hooks],
            [p.requires_grad for p in net.parameters()],
            [m.config._attn_implementation for m in net.modules() if hasattr(m, "config")],
        ],
    )  # fmt: skip


def unchanged(before: tuple[dict[str, Tensor], list[object]], after: tuple[dict[str, Tensor], list[object]]) -> bool:
    return before[1] == after[1] and all(torch.equal(before[0][k], v) for k, v in after[0].items())


def test_the_network_is_untouched_by_a_pass(model: Model) -> None:
    before = state(model)
    for p in prompts(model):
        ids, mask = padded(own_rows(model), "right")
        model.forward(ids, mask, p)
    assert unchanged(before, state(model))


def test_the_network_is_untouched_after_an_exception(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(model)
    b = batch_of(model)
    final = list(model.network.modules())[-1]

    def stop(*args: object, **kw: object) -> None:
        raise KeyboardInterrupt

    handles = [m.register_forward_pre_hook(stop) for m in model.network.modules() if not list(m.children())][-3:]
    with pytest.raises(KeyboardInterrupt), model.frozen():
        model.run(b, model.place(prefix(model), b), read=True)
    for m in model.network.modules():
        m._forward_pre_hooks.clear()
    del handles, final
    assert unchanged(before, state(model))


# 2: nothing in front changes nothing


def test_no_prompt_equals_transformers(model: Model) -> None:
    ids, mask = padded(own_rows(model), "right")
    assert torch.allclose(model.forward(ids, mask), reference(model, ids, mask), atol=1e-6)


@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_a_prompt_of_length_zero_is_the_plain_model_exactly(model: Model, kind: str) -> None:
    ids, mask = padded(own_rows(model), "right")
    p = soft(model, P=0) if kind == "soft" else prefix(model, P=0)
    assert torch.equal(model.forward(ids, mask, p), model.forward(ids, mask))


# 3 and 5: padding and alignment


def test_padding_side_and_company_change_nothing(model: Model) -> None:
    rows = own_rows(model)
    for p in [*prompts(model), soft(model, frame=Frame(place="back")), soft(model, frame=Frame(place="front"))]:
        right = model.forward(*padded(rows, "right"), p)
        left = model.forward(*padded(rows, "left"), p)
        for i, r in enumerate(rows):
            alone = model.forward(torch.tensor([r]), None, p)[0]
            assert torch.allclose(right[i, : len(r)], alone, atol=2e-5)
            assert torch.allclose(left[i, -len(r) :], alone, atol=2e-5)
            assert not right[i, len(r) :].any()


def test_a_prompt_has_an_effect(model: Model) -> None:
    """Otherwise every equality here would be empty."""
    ids, mask = padded(own_rows(model), "right")
    plain = model.forward(ids, mask)
    for p in prompts(model):
        assert (model.forward(ids, mask, p) - plain).abs().mean() > 1e-2


# 4: step by step equals all at once


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]], ids=["padded", "alone"])  # generate drops a mask of ones
@pytest.mark.parametrize("family", [*CAUSAL, "t5", "bart"])
def test_generation_equals_full_passes(family: str, texts: list[tuple[str, ...]]) -> None:
    model = tiny(family)
    # BART would begin and end with tokens of its own choice
    model.network.generation_config.forced_eos_token_id = model.network.generation_config.forced_bos_token_id = None
    shift = 3 if family in CAUSAL else 0
    ps = [soft(model), prefix(model, shift=shift), Text()]
    if family in CAUSAL:
        ps.append(soft(model, frame=Frame(place="back")))
    for p in ps:
        rows = list(model.renderer(p.frame, p).rows(texts))
        ids = generate(model, p, rows, tokens=5, eos_token_id=None)
        for row, new in zip(rows, ids.tolist(), strict=True):
            for step in range(len(new)):
                said = tuple(new[:step])
                if model.two_stacks:
                    start = (model.config.decoder_start_token_id, *said)
                    full = Row(row.codes, row.types, (len(start) - 1,), inputs=row.inputs, decoder=start)
                else:
                    codes = row.codes + said
                    full = Row(codes, (0,) * len(codes), (len(codes) - 1,), inputs=row.inputs)
                b = collate([full])
                with torch.no_grad():
                    z = model.logits(model.run(b, model.place(p, b), read=True)[:, 0])[0]
                best = z.topk(2)
                assert new[step] == int(best.indices[0]) or best.values[0] - best.values[1] < 1e-4


def test_texts_come_back_in_order() -> None:
    model = tiny("gpt2")
    out = write(model, soft(model), TEXTS, tokens=4)
    assert out == [write(model, soft(model), [t], tokens=4)[0] for t in TEXTS]


# 6: batches of several prompts


def test_a_mixed_batch_equals_one_run_per_prompt(model: Model) -> None:
    frame = Frame(labels=("a", "b", "c"), words=("w1", "w2", "w3"), readout="head", pool=model.pool)
    heads = [Head(normal(3, model.hidden, seed=s), normal(3, seed=s)) for s in range(5)]
    shift = 3 if model.arrangement == "causal" else 0
    ps: list[Prompt] = [
        soft(model, P=5, frame=frame, head=heads[0]),
        prefix(model, frame=frame, head=heads[1], shift=shift),
        Text(frame=frame, head=heads[2]),
        Soft(vectors=normal(2, model.hidden, seed=6), offset=normal(6, model.hidden), frame=frame, head=heads[3]),
        prefix(model, P=1, seed=9, frame=frame, head=heads[4]),
    ]
    texts = [TEXTS[i % 4] for i in range(10)]
    which = [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    mixed = mixed_scores(ps, which, texts, model)
    for t, w, z in zip(texts, which, mixed, strict=True):
        assert torch.allclose(z, scores(ps[w], [t], model)[0], atol=2e-5)


def test_mixed_label_words() -> None:
    model = tiny("llama")
    frame = Frame(labels=("a", "b"), words=("w1", "w2"), template="{text} Answer:")
    other = Frame(labels=("c", "d", "e"), words=("w3", "w4", "w5"), template="{text} Answer:", place="back")
    ps = [soft(model, frame=frame), soft(model, P=2, seed=7, frame=other)]
    mixed = mixed_scores(ps, [0, 1, 1, 0], TEXTS, model)
    for t, w, z in zip(TEXTS, [0, 1, 1, 0], mixed, strict=True):
        assert torch.allclose(z, scores(ps[w], [t], model)[0], atol=2e-5)


# 7: gradients


def test_every_layer_of_a_prefix_gets_a_gradient(model: Model) -> None:
    p = prefix(model)
    leaves = [t.requires_grad_() for side in (p.keys, p.values) for layers in side.values() for t in layers]
    b = batch_of(model)
    with model.frozen():
        states = model.run(b, model.place(p, b), read=model.two_stacks)
        (states.square() * torch.rand(states.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in leaves)
    assert all(q.grad is None for q in model.network.parameters())


@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_recomputed_activations_give_the_same_gradient(model: Model, kind: str) -> None:
    """transformers' own checkpointing drops caches: GPT-2 crashes and BERT trains without its prefix."""
    grads = []
    for recompute in (False, True):
        p = soft(model) if kind == "soft" else prefix(model)
        leaves = [p.vectors] if isinstance(p, Soft) else [t for ts in p.values.values() for t in ts]
        for t in leaves:
            t.requires_grad_()
        b = batch_of(model, prompt=p)
        with model.frozen():
            states = model.run(b, model.place(p, b), read=model.two_stacks, recompute=recompute)
        states.square().mean().backward()
        grads.append([t.grad for t in leaves])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))
    assert all(g.abs().sum() > 0 for g in grads[1])


# fast paths equal plain ones


@pytest.mark.parametrize("family", [*CAUSAL, "bert", "roberta", "distilbert", "modernbert"])
def test_reading_a_few_columns_equals_reading_all(family: str) -> None:
    model = tiny(family)
    for p in prompts(model):
        for t in p.tensors().values():
            t.requires_grad_()
        rows = [Row(r.codes, r.types, at, inputs=r.inputs) for r, at in
                zip(model.renderer(Frame(), p).rows(TEXTS), [(0, 2), (3,), (1,), (2, 4)], strict=True)]  # fmt: skip
        b = collate(rows)
        placed = model.place(p, b)
        with model.frozen():
            few = model.run(b, placed, read=True)
            every = model.run(b, placed).gather(1, b.at[..., None].expand(-1, -1, model.hidden))
        assert torch.allclose(few[b.read], every[b.read], atol=1e-5)
        tensors = [t for t in p.tensors().values()]
        a = torch.autograd.grad(few[b.read].square().sum(), tensors)
        e = torch.autograd.grad(every[b.read].square().sum(), tensors)
        assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(a, e, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_a_warm_prompt_equals_the_soft_one(family: str) -> None:
    model = tiny(family)
    frame = Frame(labels=("a", "b"), words=("w1", "w2"), place="front")
    p = soft(model, frame=frame)
    assert isinstance(warm(model, p), Prefix)
    ids, mask = padded(own_rows(model), "right")
    assert torch.allclose(model.forward(ids, mask, warm(model, p)), model.forward(ids, mask, p), atol=1e-5)


def test_a_window_is_never_warmed() -> None:
    model = tiny("mistral")  # its window would stop seeing the prompt's vectors, but never a prefix
    assert isinstance(warm(model, soft(model)), Soft)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_scored_as_transformers_does(family: str) -> None:
    model = tiny(family)
    template = "{text} {mask} w1" if model.arrangement == "masked" else "{text}"
    rows = list(model.renderer(Frame(template=template)).rows(TEXTS))
    b = collate(rows)
    with torch.no_grad(), model.frozen():
        states = model.run(b, read=True)
        more = {"decoder_input_ids": b.decoder} if model.two_stacks else {}
        full = model.network(input_ids=b.codes, attention_mask=b.mask.long(), **more).logits
    full = full.gather(1, b.at[..., None].expand(-1, -1, full.shape[-1]))
    ids = torch.tensor([7, 11, 30])
    assert torch.allclose(model.logits(states), full, atol=1e-5)
    assert torch.allclose(model.logits(states, ids), full[..., ids], atol=1e-5)


# 10 and refusals


def test_a_prompt_refuses_another_model(model: Model) -> None:
    other = tiny("gpt2" if not model.name.startswith("tiny:gpt2") else "llama", seed=3)
    p = soft(model).with_card(model=model.name, fingerprint=model.fingerprint)
    with pytest.raises(PromptError, match=f"{model.name}.*{other.name}"):
        store.check(p, other.name, other.fingerprint)
    store.check(p, model.name, model.fingerprint)


def test_fingerprints_tell_weights_apart() -> None:
    assert tiny("gpt2").fingerprint == tiny("gpt2").fingerprint != tiny("gpt2", seed=1).fingerprint


def test_wrong_shapes_are_refused(model: Model) -> None:
    ids, mask = padded(own_rows(model), "right")
    with pytest.raises(ModelError, match="7 values each"):
        model.forward(ids, mask, Soft(vectors=torch.zeros(2, 7)))
    p = prefix(model)
    stack = next(iter(p.keys))
    fewer = Prefix(keys={stack: p.keys[stack][:1]}, values={stack: p.values[stack][:1]})
    with pytest.raises(ModelError, match=f"keys for 1 {stack} layers"):
        model.forward(ids, mask, fewer)


def test_a_network_without_positions_takes_no_shift() -> None:
    model = tiny("t5")
    ids, mask = padded(own_rows(model), "right")
    with pytest.raises(ModelError, match="shift 0"):
        model.forward(ids, mask, prefix(model, shift=3))


def test_sites_know_grouped_queries() -> None:
    assert {s.heads for s in tiny("llama").sites} == {2}
    assert [s.stack for s in tiny("t5").sites].count("cross") == 2
    assert Placed().shift == 0


def test_gradients_are_the_same_with_several_threads() -> None:
    """A prompt's vectors stand in every row; their gradient must be summed in a fixed order."""
    model = tiny("minilm", hidden=256)
    p = soft(model, P=20)
    p.vectors.requires_grad_()
    b = batch_of(model, TEXTS * 16, p)
    weights = torch.rand(*b.codes.shape, 256, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(2)
    try:
        found = [
            torch.autograd.grad((model.inputs(b, model.place(p, b)) * weights).sum(), p.vectors)[0] for _ in range(30)
        ]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(found[0], g) for g in found)
