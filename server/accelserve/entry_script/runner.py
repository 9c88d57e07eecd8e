"""One request after the other through run(): whatever the script does, there is one answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from accelserve.entry_script.answers import INTERNAL, RUN_FAILED, Answers, UnencodableAnswer, error_response
from accelserve.entry_script.inputs import InputRefused, Inputs
from accelserve.entry_script.messages import ScriptRequest, ScriptResponse
from accelserve.entry_script.scores import passed_on_refusal
from accelserve.entry_script.time_limit import RunTimeout, TimeLimit
from accelserve.entry_script.tracebacks import told

_EMPTY = ScriptResponse(200, b"", "text/html; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Runner:
    """strict: as the original's server. What the script raises is in the response's report, for the log."""

    run: Callable[..., Any]
    inputs: Inputs
    answers: Answers
    limit: TimeLimit
    timeout_ms: int
    strict: bool

    def answer(self, request: ScriptRequest) -> ScriptResponse:
        """Within the time limit, which also holds for what is read from a script's generator. In the main thread."""
        try:
            try:
                return self._answer(request)
            finally:
                self.limit.end()
        except RunTimeout as timeout:
            self.limit.end()  # it may have come before the other did it
            return self._timed_out(timeout)

    def _answer(self, request: ScriptRequest) -> ScriptResponse:
        try:
            arguments = self.inputs.arguments(request)
        except InputRefused as refused:
            return _refusal(refused)
        try:
            began = perf_counter_ns()
            self.limit.begin(began)
            returned = self.run(**arguments)
            if hasattr(returned, "__await__"):
                returned = asyncio.run(_finished(returned))
            return self.answers.response(returned, perf_counter_ns() - began)
        except RunTimeout:
            raise
        except BaseException as error:
            return self._failed(error)

    async def answer_async(self, request: ScriptRequest) -> ScriptResponse:
        """The same of an async run(); one that blocks the loop is not interrupted.

        Whoever cancels the task, a script that has got hold of it too, it has an answer.
        """
        try:
            arguments = self.inputs.arguments(request)
        except InputRefused as refused:
            return _refusal(refused)
        began = perf_counter_ns()
        try:
            async with asyncio.timeout(self.timeout_ms / 1000) as scope:
                returned = await _finished(self.run(**arguments))
            return self.answers.response(returned, perf_counter_ns() - began)
        except BaseException as error:
            if isinstance(error, TimeoutError) and scope.expired():
                return self._timed_out(error)
            return self._failed(error)

    def _timed_out(self, error: BaseException) -> ScriptResponse:
        status = 500 if self.strict else 504
        answer = error_response(status, f"Scoring timeout after {self.timeout_ms} ms", failed=True)
        return answer._replace(report=told(error))

    def _failed(self, error: BaseException) -> ScriptResponse:
        report = str(error) if isinstance(error, UnencodableAnswer) else told(error)  # raised here, not in the script
        return passed_on_refusal(error) or self._error_answer(error)._replace(report=report)

    def _error_answer(self, error: BaseException) -> ScriptResponse:
        if not isinstance(error, UnencodableAnswer):
            return error_response(500, RUN_FAILED, failed=True)
        if self.strict:
            return error_response(500, INTERNAL)
        return error_response(500, f"The scoring script's answer cannot be sent: {error}", failed=True)


async def _finished(returned: Any) -> Any:
    return await returned if isinstance(returned, Awaitable) else returned


def _refusal(refused: InputRefused) -> ScriptResponse:
    return _EMPTY if refused.status == 200 else error_response(refused.status, refused.message)
