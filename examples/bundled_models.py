"""The bundled tiny models: who answers what, and who is right.

Run it with `python examples/bundled_models.py`; it takes some seconds and downloads nothing.
"""

from __future__ import annotations

from treegym.models.family.bundled import BUNDLED_TEACHERS, load_bundled
from treegym.models.family.verdicts import YesNoModel
from treegym.models.tasks import is_correct, problems


def main() -> None:
    """Asks the primary, every teacher and the judge about one held-out prompt of each kind."""
    held_out = problems("test", 4, seed=3)
    judge = YesNoModel("tiny-judge")
    for name in ("tiny-primary", *BUNDLED_TEACHERS):
        model = load_bundled(name)
        contexts = [model.tokenizer.encode(problem.prompt) for problem in held_out]
        answers = [model.tokenizer.decode(ids) for ids in model.generate(contexts, max_new_tokens=24)]
        approval = judge.probabilities([p.prompt + answer for p, answer in zip(held_out, answers, strict=True)])
        print(name)
        for problem, answer, probability in zip(held_out, answers, approval, strict=True):
            verdict = "right" if is_correct(answer, problem.answer) else "wrong"
            print(f"  {problem.prompt:>9} {answer:20} {verdict}  (the judge believes it to {probability:.0%})")


if __name__ == "__main__":
    main()
