from .checks import check as check
from .checks import problems as problems
from .schema import covariate_names as covariate_names
from .schema import fingerprint as fingerprint
from .storage import open as open
from .storage import save as save
from .tables import from_tables as from_tables
from .virtual import virtual as virtual
