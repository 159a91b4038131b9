"""ClaPS: cluster the vocabulary, prune it by what each word does alone, then search short strings of what is left.

    vocabulary <- nearest word to each of `clusters` k-means centroids of the words' embeddings
    solo(w) = f(w + start) - f(start);  kept: the `share` of words with the largest solo
    strings of `length` kept words, before the start:   greedy: word after word, the best of all kept ones is appended
        genetic: `size` random strings; a generation is `mutants` (each word redrawn with probability `rate`) and as
        many one-point crossings of two members; the best `size` stay

On the planted task, with its phrases as the vocabulary: greedy 4000 calls; genetic (size 16) 10000.

Paper: Zhou et al. 2023, https://arxiv.org/abs/2310.12774 (constants of the released code, but for the sizes)
Departure: words of the training texts are the vocabulary unless one is given (paper: the model's own, on 2000
    centroids). Embeddings: those of the local model's input table; without one the list is taken as it is. Clusters
    50, kept share a tenth but at least 2 * length words, genetic sizes a fourth of the paper's. Greedy may stop before
    `length`, when no word makes the string better. Solo effects are differences of scores, ties by likelihood (paper:
    also KL).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..registry import searching
from ..search.candidate import Candidate
from ..search.edits import bare, join, said, split
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class ClaPSConfig:
    vocabulary: tuple[str, ...] = ()  # words or phrases; empty: the most frequent words of the training texts
    words: int = 500  # of the training texts, at most
    clusters: int = 50  # k-means centroids, where the model shows embeddings
    share: float = 0.1  # of the words kept after pruning
    length: int = 5  # words of a string
    by: Literal["greedy", "genetic"] = "greedy"  # how strings are searched
    size: int = 32  # genetic: population
    mutants: int = 16  # genetic: mutants and as many crossings a generation
    rate: float = 0.1  # genetic: probability that a word is redrawn
    generations: int = 30  # genetic


def clustered(words: Sequence[str], s: Search, k: int) -> list[str]:
    """The word nearest to each centroid. The words themselves where there are few, or no embeddings."""
    table = s.model.get("embeddings")
    if table is None or len(words) <= k:
        return list(words)
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    ids = [s.model["tokenizer"](" " + w, add_special_tokens=False)["input_ids"] for w in words]
    vectors = [table[i].detach().float().mean(0).cpu().numpy() for i in ids]
    with threadpool_limits(1):
        far = KMeans(k, n_init=1, random_state=s.seed).fit(vectors).transform(vectors)
    return [words[i] for i in dict.fromkeys(far.argmin(0).tolist())]


def string(s: Search, words: Sequence[str], op: str, *parents: Candidate) -> Candidate:
    level = "word" if all(len(w.split()) == 1 for w in words) else "sentence"
    return s.start.put(s.slot, join([*(said(w, level) for w in words), s.text(s.start)], level)).born(op, *parents)


def search(config: ClaPSConfig, s: Search) -> Policy:
    texts = (t for e in s.task.train for t in e.inputs)
    counts = Counter(bare(w) for t in texts for w in split(t, "word"))
    frequent = [w for w, _ in counts.most_common(config.words) if w and "{" not in w]
    words = clustered(config.vocabulary or frequent, s, config.clusters)
    solo = {string(s, [w], "solo").id: w for w in words}
    seen = yield s.evaluate([s.start, *(string(s, [w], "solo") for w in words)])
    kept = [solo[x.id] for x in s.top(seen[1:], max(2 * config.length, round(config.share * len(words))))]
    if config.by == "greedy":
        best = seen[0]
        made: list[str] = []
        for _ in range(config.length):
            longer = [string(s, [*made, w], "append", best.candidate) for w in kept if w not in made]
            new = yield s.evaluate(longer)
            seen += new
            if not new or s.best(new).rank <= best.rank:
                break
            best = s.best(new)
            made.append(next(w for w in kept if w not in made and string(s, [*made, w], "").id == best.id))
        return s.top(seen, s.options.finalists)
    strings = {}

    def named(word_lists: Sequence[Sequence[str]], op: str) -> list[Candidate]:
        out = [string(s, ws, op) for ws in word_lists]
        strings.update({c.id: list(ws) for c, ws in zip(out, word_lists, strict=True)})
        return out

    drawn = [s.rng.choices(kept, k=config.length) for _ in range(config.size)]
    population = yield s.evaluate(named(drawn, "random"))
    for _ in s.rounds(config.generations):
        parents = [strings[s.rng.choice(population).id] for _ in range(3 * config.mutants)]
        turned = [
            [s.rng.choice(kept) if s.rng.random() < config.rate else w for w in p] for p in parents[: config.mutants]
        ]
        pairs = zip(parents[config.mutants :: 2], parents[config.mutants + 1 :: 2], strict=False)
        crossed = [[*a[:i], *b[i:]] for a, b in pairs for i in [s.rng.randint(1, max(1, config.length - 1))]]
        new = yield s.evaluate([*named(turned, "mutate"), *named(crossed, "cross")])
        population = s.top([*population, *new], config.size)
    return s.top([*seen, *population], s.options.finalists)


searching(
    name="claps",
    summary="clusters and prunes a vocabulary, then searches short strings of its words",
    config=ClaPSConfig,
    build=search,
    paper="[Zhou et al. 2023](https://arxiv.org/abs/2310.12774)",
)
