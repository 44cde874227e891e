from .schema import check as check
from .schema import fingerprint as fingerprint
from .storage import open as open
from .storage import save as save
from .tables import from_tables as from_tables
from .virtual import virtual as virtual
