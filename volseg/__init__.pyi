# The public names and where they come from: read by type checkers, and by `volseg/__init__.py` itself.
from volseg.batch.runner import segment as segment
from volseg.errors import ExportError as ExportError
from volseg.errors import GeometryError as GeometryError
from volseg.errors import InputError as InputError
from volseg.errors import ModelError as ModelError
from volseg.errors import RecipeError as RecipeError
from volseg.errors import RefusalError as RefusalError
from volseg.errors import TrainingError as TrainingError
from volseg.errors import UsageError as UsageError
from volseg.errors import VolsegError as VolsegError
from volseg.export.save import save as save
from volseg.geometry import Geometry as Geometry
from volseg.inference import Model as Model
from volseg.inference import load_model as load_model
from volseg.loaders import load as load
from volseg.results.case import CaseResult as CaseResult
from volseg.volume import Label as Label
from volseg.volume import LabelVolume as LabelVolume
from volseg.volume import Volume as Volume

__version__: str
_HOMES: dict[str, str]
__all__: list[str]
