"""TFX components and their Beam code: the only folder with executors.

`import tfx` must come before any other package of the family, in Beam workers too: it installs a stand-in for
`tfx_bsl.arrow.sql_util`, without which TensorFlow Data Validation and Model Analysis fail to import.
"""

import tfx  # noqa: F401
