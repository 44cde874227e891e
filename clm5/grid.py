"""The soil layers of CLM5: 20 active ones (8.60 m), and the deeper five that only transport reads.

Positions follow the published codes: `INTERFACE[j]` is the lower face of layer `j`.
Source: CLM5 technical note, Table 2.2.1 (standard 25-layer structure).
"""

import numpy as np

N_LAYERS = 20
N_MONTHS = 12
DAYS_PER_YEAR = 365.0

LITTER_POOLS = ("cwd", "litter1", "litter2", "litter3")
SOIL_POOLS = ("soil1", "soil2", "soil3")
POOLS = LITTER_POOLS + SOIL_POOLS

# fmt: off
THICKNESS_ALL = np.array([
    .02, .04, .06, .08, .12, .16, .20, .24, .28, .32, .36, .40, .44, .54, .64, .74, .84, .94, 1.04, 1.14,
    2.39, 4.67553390593274, 7.63519052838329, 11.14, 15.1154248593737,
])  # m
NODE_ALL = np.array([
    .01, .04, .09, .16, .26, .40, .58, .80, 1.06, 1.36, 1.70, 2.08, 2.50, 2.99, 3.58, 4.27, 5.06, 5.95, 6.94, 8.03,
    9.795, 13.3277669529664, 19.4831291701244, 28.8707244343160, 41.9984368640029,
])  # m
INTERFACE_ALL = np.array([
    .02, .06, .12, .20, .32, .48, .68, .92, 1.20, 1.52, 1.88, 2.28, 2.72, 3.26, 3.90, 4.64, 5.48, 6.42, 7.46, 8.60,
    10.99, 15.6655339059327, 23.3007244343160, 34.4407244343160, 49.5561492936897,
])  # m
# fmt: on

THICKNESS = THICKNESS_ALL[:N_LAYERS]
NODE = NODE_ALL[:N_LAYERS]
INTERFACE = INTERFACE_ALL[:N_LAYERS]
DEPTH = float(INTERFACE[-1])  # m, the bottom of the soil that is modelled
