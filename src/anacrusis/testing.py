"""For tests, here and of outside methods: tiny random models of every family, and planted tasks.

Nothing is downloaded: tokenizers are made on the spot, weights are random.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .measure.predict import scores
from .model.images import Preparation
from .model.model import Model
from .model.open import wrap
from .model.open_sight import wrap_sight
from .model.sight import Sight
from .prompt.values import Frame, Head, Prompt, Soft
from .task import Split, Task

WORDS = [f"w{i}" for i in range(90)]
FAMILIES = ("gpt2", "llama", "qwen2", "mistral", "gemma2", "bert", "roberta", "distilbert", "modernbert", "t5", "bart")
ENCODERS = ("minilm",)
DUALS = ("clip", "siglip")
SEEING = (*DUALS, "vit", "deit", "vit_mae", "dinov2")


def tokenizer(family: str = "bert") -> Any:
    """A word-level tokenizer whose vocabulary is w0 .. w89; special tokens are placed as the family does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    order = special if family != "clip" else ["<pad>", "<s>", "<unk>", "</s>", "<mask>"]  # 2 means another rule there
    vocab = {t: i for i, t in enumerate([*order, ":", "x", "a", "Answer", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    around = {
        "gpt2": "$A", "qwen2": "$A", "t5": "$A </s>",
        "llama": "<s> $A", "mistral": "<s> $A", "gemma2": "<s> $A",
    }.get(family, "<s> $A </s>")  # fmt: skip
    ends = [(t, vocab[t]) for t in ("<s>", "</s>")]
    raw.post_processor = processors.TemplateProcessing(single=around, special_tokens=ends)
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=raw, sep_token="</s>", cls_token="<s>", **names)


def tiny(family: str = "gpt2", *, seed: int = 0, layers: int = 2, hidden: int = 32, scale: float = 0.2) -> Model:
    """A random model of a family (one of FAMILIES, or "minilm" for a BERT without head). float32, CPU.

    scale: standard deviation of the weights; larger than usual so that prompts make a difference.
    """
    import transformers as tf

    tok = tokenizer(family)
    V = len(tok)
    common = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    llama = {
        **common, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 128,
    }  # fmt: skip
    bert = {
        **common, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 128, "type_vocab_size": 2,
    }  # fmt: skip
    small = {"n_embd": hidden, "n_layer": layers, "n_head": 4, "n_positions": 128}
    made: dict[str, tuple[Any, Any, str]] = {
        "gpt2": (tf.GPT2LMHeadModel, tf.GPT2Config(**common, **small), "causal"),
        "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(**llama), "causal"),
        "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(**llama), "causal"),
        "mistral": (tf.MistralForCausalLM, tf.MistralConfig(**llama, sliding_window=8), "causal"),
        "gemma2": (tf.Gemma2ForCausalLM, tf.Gemma2Config(**llama, head_dim=8, sliding_window=8), "causal"),
        "bert": (tf.BertForMaskedLM, tf.BertConfig(**bert), "masked"),
        "minilm": (tf.BertModel, tf.BertConfig(**bert), "encoder"),
        "roberta": (
            tf.RobertaForMaskedLM,
            tf.RobertaConfig(**{**bert, "type_vocab_size": 1, "max_position_embeddings": 130}),
            "masked",
        ),
        "distilbert": (
            tf.DistilBertForMaskedLM,
            tf.DistilBertConfig(
                vocab_size=V, pad_token_id=0, dim=hidden, n_layers=layers, n_heads=4, hidden_dim=48,
                max_position_embeddings=128,
            ),
            "masked",
        ),
        "modernbert": (
            tf.ModernBertForMaskedLM,
            tf.ModernBertConfig(
                **{k: v for k, v in bert.items() if k != "type_vocab_size"}, cls_token_id=1, sep_token_id=2,
                local_attention=8,
            ),
            "masked",
        ),
        "t5": (
            tf.T5ForConditionalGeneration,
            tf.T5Config(
                vocab_size=V, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, d_model=hidden, d_kv=8,
                d_ff=48, num_layers=layers, num_heads=4,
            ),
            "encoder-decoder",
        ),
        "bart": (
            tf.BartForConditionalGeneration,
            tf.BartConfig(
                **common, d_model=hidden, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=128,
                decoder_start_token_id=2,
            ),
            "encoder-decoder",
        ),
    }  # fmt: skip
    cls, config, arrangement = made[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = cls(config).eval().requires_grad_(False)
        for p in network.parameters():
            if p.dim() > 1:
                p.normal_(0.0, scale)
    if family == "bart":  # as its checkpoints say it, beside the configuration
        network.generation_config.forced_bos_token_id = 1
    return wrap(network, tok, name=f"tiny:{family}:{seed}", arrangement=arrangement)


def sight(family: str = "clip", *, seed: int = 0, layers: int = 2, width: int = 32, scale: float = 0.2) -> Sight:
    """A random model for images of 32 pixels and patches of 8 (one of SEEING). float32, CPU."""
    import transformers as tf

    tok = tokenizer({"siglip": "t5"}.get(family, family))
    common = {"hidden_size": width, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4}
    seeing = {**common, "image_size": 32, "patch_size": 8}
    text = {**common, "vocab_size": len(tok), "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": tok.eos_token_id}  # fmt: skip
    made: dict[str, tuple[Any, Any]] = {
        "clip": (tf.CLIPModel, lambda: tf.CLIPConfig(text_config=text, vision_config=seeing, projection_dim=24)),
        "siglip": (tf.SiglipModel, lambda: tf.SiglipConfig(
            text_config={**text, "projection_size": width}, vision_config=seeing)),
        "vit": (tf.ViTModel, lambda: tf.ViTConfig(**seeing)),
        "deit": (tf.DeiTModel, lambda: tf.DeiTConfig(**seeing)),
        "vit_mae": (tf.ViTMAEModel, lambda: tf.ViTMAEConfig(**seeing)),
        "dinov2": (tf.Dinov2Model, lambda: tf.Dinov2Config(**seeing)),
    }  # fmt: skip
    cls, config = made[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = cls(config()).eval().requires_grad_(False)
        for p in network.parameters():
            if p.dim() > 1:
                p.normal_(0.0, scale)
    if family in DUALS:
        network.logit_scale.fill_(3.0)
    return wrap_sight(network, name=f"tiny:{family}:{seed}", tokenizer=tok if family in DUALS else None,
                      prepare=Preparation(32))  # fmt: skip


def planted(
    model: Model, *, examples: int = 600, length: int = 4, classes: int = 2, seed: int = 0, strength: float = 1.0
) -> tuple[Task, Prompt]:
    """A task whose perfect prompt is known to exist, and that prompt (the hidden teacher).

    Random inputs of 4 to 12 words are labelled by the frozen network under a random prompt of `length` vectors. Inputs
    on which the teacher is unsure are left out, so that its labels can be learned from examples; classes are balanced.
    strength: size of the teacher's vectors, in units of the embedding table's RMS.
    """
    g = torch.Generator().manual_seed(seed)
    labels = tuple(f"c{i}" for i in range(classes))
    spoken = model.arrangement != "encoder"
    template = {"masked": "{text} {mask}", "causal": "{text} Answer :"}.get(model.arrangement, "{text}")
    frame = Frame(labels=labels, template=template, readout="label-words" if spoken else "head", pool=model.pool)
    vectors = strength * model.scale * torch.randn(length, model.hidden, generator=g)
    sizes = torch.randint(4, 13, (8 * examples,), generator=g).tolist()
    texts = [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=g).tolist()) for n in sizes]
    texts = list(dict.fromkeys(texts))
    every = Frame(**{**frame.__dict__, "labels": tuple(WORDS), "words": tuple(WORDS)})
    directions = Head(torch.randn(len(WORDS), model.hidden, generator=g), torch.zeros(len(WORDS)))
    z = scores(Soft(vectors=vectors, frame=every, head=None if spoken else directions), [(t,) for t in texts], model)
    # of many sets of words (or directions of the head), take the one on which the teacher is least one-sided
    sets = [torch.randperm(len(WORDS), generator=g)[:classes] for _ in range(300)]
    chosen = max(sets, key=lambda c: float(z[:, c].argmax(1).bincount(minlength=classes).min()))
    words = tuple(WORDS[i] for i in chosen.tolist())
    head = None if spoken else Head(directions.weight[chosen], directions.bias[chosen])
    teacher = Soft(vectors=vectors, frame=Frame(**{**frame.__dict__, "words": words}), head=head)
    z = z[:, chosen]
    margin = z.topk(2, dim=1).values.diff(dim=1).abs()[:, 0]
    gold = z.argmax(1)
    kept: list[int] = []
    for c in range(classes):
        mine = (gold == c).nonzero()[:, 0]
        kept += mine[margin[mine].argsort(descending=True)[: examples // classes]].tolist()
    order = [kept[i] for i in torch.randperm(len(kept), generator=g).tolist()]
    task = Task.from_lists(
        [texts[i] for i in order], [labels[int(gold[i])] for i in order], name="planted",
        words=dict(zip(labels, words, strict=True)), split=Split(seed=seed),
    )  # fmt: skip
    return task, teacher


def planted_sight(model: Sight, *, examples: int = 120, classes: int = 3, seed: int = 0) -> tuple[Task, Prompt]:
    """Pictures that a frozen network labels under a hidden prompt, and that prompt: a perfect one is known to exist.

    Dual encoders: a hidden context of the class texts. Others: hidden rows in the image tower and a hidden head.
    """
    import numpy as np

    from .prompt.values import Tokens

    g, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    S = model.prepare.size
    grids = rng.integers(0, 256, (4 * examples, 4, 4, 3))  # coarse: random pixels all look alike to a tower
    pictures = [np.kron(x, np.ones((S // 4, S // 4, 1))).astype(np.uint8) for x in grids]
    labels = tuple(f"c{i}" for i in range(classes))
    inputs = [(p,) for p in pictures]
    every = Frame(fields=("image",), labels=tuple(WORDS), words=tuple(WORDS), template="{soft} {label}.")
    if model.text is not None:
        rows = model.scale * torch.randn(4, model.text.table.shape[1], generator=g)
        teacher: Prompt = Tokens(side="text", layers={0: rows}, frame=Frame(**{**every.__dict__, "readout": "match"}))
    else:
        assert model.image.tower is not None
        rows = model.row_scale * torch.randn(4, model.image.tower.width, generator=g)
        head = Head(torch.randn(len(WORDS), model.hidden, generator=g), torch.zeros(len(WORDS)))
        frame = Frame(**{**every.__dict__, "readout": "head"})
        teacher = Tokens(side="image", layers={0: rows}, frame=frame, head=head)
    z = scores(teacher, inputs, model)
    # of many sets of words (or directions of the head), take the one on which the teacher is least one-sided
    sets = [torch.randperm(len(WORDS), generator=g)[:classes] for _ in range(500)]
    chosen = max(sets, key=lambda c: float(z[:, c].argmax(1).bincount(minlength=classes).min()))
    words = tuple(WORDS[i] for i in chosen.tolist())
    own = None if teacher.head is None else Head(teacher.head.weight[chosen], teacher.head.bias[chosen])
    teacher = replace(teacher, frame=replace(teacher.frame, labels=labels, words=words), head=own)
    z = z[:, chosen]
    gold = z.argmax(1)
    margin = z.topk(2, dim=1).values.diff(dim=1).abs()[:, 0]
    kept: list[int] = []
    for c in range(classes):
        mine = (gold == c).nonzero()[:, 0]
        kept += mine[margin[mine].argsort(descending=True)[: examples // classes]].tolist()
    task = Task.from_arrays([pictures[i] for i in kept], [labels[int(gold[i])] for i in kept], name="planted",
                            words=dict(zip(labels, words, strict=True)), split=Split(seed=seed))  # fmt: skip
    return task, teacher
