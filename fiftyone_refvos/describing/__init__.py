"""Writing expressions for objects that have masks but no text: pictures, prompts, chat models, stages.

Three stages, each built on the one before, as Ref-SAV was made: the object alone, the object in its scene, the object
over the video. `fiftyone_refvos.describe` walks a view with it; nothing here knows FiftyOne.
"""

from fiftyone_refvos.describing.chat import ChatError, ChatModel
from fiftyone_refvos.describing.prompts import PromptError, Prompts, load_prompts
from fiftyone_refvos.describing.server import ServerChat
from fiftyone_refvos.describing.stages import STAGES, Stage, StepAnswer

__all__ = [
    "STAGES",
    "ChatError",
    "ChatModel",
    "PromptError",
    "Prompts",
    "ServerChat",
    "Stage",
    "StepAnswer",
    "load_prompts",
]
