from .compare import compare as compare
from .compare import save as save
from .html import report as report
